"""Urabrask: the validator, which tries a kernel out in a process of its own before any seed may use it."""
