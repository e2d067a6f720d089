"""Tests of esperd: tests."""
