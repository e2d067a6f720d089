"""Configuration: a TOML file read into frozen dataclasses, with every error reported at once."""
