"""Tests of esperd: cli."""
