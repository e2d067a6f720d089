"""Fuzzing: bytes from nobody in particular, thrown at everything that reads bytes from outside."""
