"""The process around a control plane, for tests and benchmarks that serve one without a daemon."""

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from esperd.config.fields import describe_settings
from esperd.config.origin import DEFAULT, SET_LOG_LEVEL, Configuration
from esperd.config.settings import Settings
from esperd.control.supervisor import DiagnosticSection, Reloaded


def default_configuration() -> Configuration:
    """Every setting at its default."""
    origins = {one.dotted_name: DEFAULT for one in describe_settings()}
    return Configuration(Path("/etc/esperd/esperd.toml"), (), Settings(), MappingProxyType(origins))


@dataclass
class RecordingSupervisor:
    """Notes what it is asked."""

    started: list[str] = field(default_factory=list)
    num_drains: int = 0
    configuration: Configuration = field(default_factory=default_configuration)
    reloads: list[Reloaded] = field(default_factory=list)
    """What the next reloads come to; without any, nothing has changed."""

    def start_run(self) -> str:
        self.started.append(f"run-{len(self.started) + 2}")
        return self.started[-1]

    def drain(self) -> None:
        self.num_drains += 1

    def reload(self) -> Reloaded:
        return self.reloads.pop(0) if self.reloads else Reloaded()

    def set_log_level(self, level: str) -> str:
        previous = self.configuration.settings.log.level
        self.configuration = self.configuration.with_values({"log.level": level}, SET_LOG_LEVEL)
        return previous

    async def diagnose(self) -> tuple[DiagnosticSection, ...]:
        return (DiagnosticSection("stage", "all is well"),)
