"""Tezzeret: compiles blueprints into kernels ahead of time, and brings them to a run."""
