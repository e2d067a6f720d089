"""Tests of esperd: weatherlight."""
