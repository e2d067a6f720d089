"""Tests of esperd: config."""
