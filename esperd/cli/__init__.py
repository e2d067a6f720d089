"""The esperd command line: serve, demo, init, check and keys."""
