"""Tests of esperd: tamiyo."""
