"""Weatherlight, the supervisor: builds the parts, starts them in order and stops them in order."""
