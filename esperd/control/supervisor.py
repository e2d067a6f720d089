"""What the control plane may ask of the process around it: another run, an orderly end, other settings, a look inside.

Event loop only. `weatherlight` does it; `control` knows this port alone.
"""

from dataclasses import dataclass
from typing import Protocol

from esperd.config.origin import Configuration


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting that a reload met changed, its values as TOML."""

    name: str
    """`section.key`."""
    old_value: str
    new_value: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old_value} -> {self.new_value}"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did: all that could be applied, or nothing."""

    applied: tuple[SettingChange, ...] = ()
    """What is in force now."""
    restart_required: tuple[SettingChange, ...] = ()
    """What takes a restart of the daemon."""
    rejected: tuple[str, ...] = ()
    """Every error in the files; nothing was applied. Empty when the reload was done."""


@dataclass(frozen=True, slots=True)
class DiagnosticSection:
    """One part of what a maintainer sees."""

    title: str
    text: str


class Supervisor(Protocol):
    """The process around the control plane."""

    @property
    def configuration(self) -> Configuration:
        """What is in force, and where each value comes from."""
        ...

    def start_run(self) -> str:
        """Begin a new run once this call is answered; returns its id. Raises EsperdError DRAINING when it leaves."""

    def drain(self) -> None:
        """Leave in good order, as on SIGTERM, once this call is answered."""

    def reload(self) -> Reloaded:
        """Read configuration, keys and certificates again and apply all of it, or nothing."""

    def set_log_level(self, level: str) -> str:
        """Change the level of the log until the next start or reload; returns the level that was."""

    async def diagnose(self) -> tuple[DiagnosticSection, ...]:
        """What a maintainer needs to see, without secrets."""
