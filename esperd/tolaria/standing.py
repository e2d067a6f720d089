"""What holds the trainer's loop, besides an emergency or a rollback.

Training thread only; plain state, written by commands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Standing:
    """What holds the loop, besides an emergency."""

    is_paused: bool = False
    is_stopping: bool = False
    is_policy_present: bool = False
    packet_every_steps: int = 0
    """How often the steering policy wants a packet; 0 leaves it to the configuration."""

    def state_dict(self) -> dict[str, Any]:
        """What a later start of the daemon goes on with."""
        return {
            "is_paused": self.is_paused,
            "is_stopping": self.is_stopping,
            "is_policy_present": self.is_policy_present,
            "packet_every_steps": self.packet_every_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand as an earlier start stood."""
        self.is_paused = state["is_paused"]
        self.is_stopping = state["is_stopping"]
        self.is_policy_present = state["is_policy_present"]
        self.packet_every_steps = state["packet_every_steps"]
