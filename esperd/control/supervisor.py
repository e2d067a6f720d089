"""What the control plane may ask of the process around it: another run, an orderly end.

Event loop only. `weatherlight` does it; `control` knows this port alone.
"""

from typing import Protocol


class Supervisor(Protocol):
    """The process around the control plane."""

    def start_run(self) -> str:
        """Begin a new run once this call is answered; returns its id."""

    def drain(self) -> None:
        """Leave in good order, as on SIGTERM, once this call is answered."""
