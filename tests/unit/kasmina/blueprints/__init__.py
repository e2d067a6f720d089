"""Tests of esperd: kasmina blueprints."""
