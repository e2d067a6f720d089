"""The transport's names for callers: what all who come over a Unix socket are called.

Pure. Over TCP a name is one connection's; on a Unix socket everybody has the same one.
"""

UNIX = "unix:"


def is_unix(peer: str) -> bool:
    """Whether the caller came over a Unix socket, so that others have the same name."""
    return peer.startswith(UNIX)
