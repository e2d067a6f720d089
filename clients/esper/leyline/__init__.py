"""Leyline as generated code."""
