"""Who this daemon is: the names that clients sign for and that its ids begin with.

A frozen value, made once at start-up by the supervisor.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The daemon's names in this start."""

    server_id: str
    """The audience of signed requests."""
    epoch: bytes
    """16 random bytes, new at each start."""
    version: str
    """Version of esperd."""
    run_id: str
    torch_version: str = ""
