"""Tests of esperd: bridge."""
