"""Tolaria, the trainer: the loop that trains the host and its seeds, one safe point a step."""
