"""Benchmark: how fast the control plane is, alone and beside training."""
