"""Tests of the control plane over the wire."""
