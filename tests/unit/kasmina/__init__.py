"""Tests of esperd: kasmina."""
