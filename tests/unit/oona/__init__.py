"""Tests of esperd: oona."""
