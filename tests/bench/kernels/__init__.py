"""Benchmark: what kernels cost to make, to load and to keep, and what a step with them takes."""
