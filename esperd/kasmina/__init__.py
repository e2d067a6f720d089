"""Kasmina, the seed executor: where seeds germinate, learn, blend, are measured, and stay or go."""
