"""Tests of esperd: the validator and its process."""
