"""Benchmark: what training in esperd costs over the bare loop."""
