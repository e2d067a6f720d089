"""Tests of esperd: tolaria."""
