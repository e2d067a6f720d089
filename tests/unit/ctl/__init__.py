"""Tests of esperd: ctl."""
