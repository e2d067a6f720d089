"""Tests of esperd: integration."""
