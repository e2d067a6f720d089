"""Tests of esperd: unit."""
