"""Tests of esperd: control."""
