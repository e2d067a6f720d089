"""Tests of esper: tezzeret."""
