"""Kernels as seeds use them: compiled blueprints, opened once everything about them is proven, and shared by seeds."""
