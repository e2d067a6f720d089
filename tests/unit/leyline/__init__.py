"""Tests of esperd: leyline."""
