"""The clients in other languages, run as their users run them, against a real daemon."""
