"""Tests of esperd: gpu."""
