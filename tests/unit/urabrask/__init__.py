"""Tests of esperd: urabrask."""
