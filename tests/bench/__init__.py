"""Tests of esperd: bench."""
