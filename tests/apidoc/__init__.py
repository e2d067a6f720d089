"""Writes esperd/docs/api.md, the API reference, from the proto files and the error catalogue."""
