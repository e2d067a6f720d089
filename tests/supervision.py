"""The process around a control plane, for tests and benchmarks that serve one without a daemon."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import structlog

from esperd.config.fields import describe_settings
from esperd.config.origin import DEFAULT, SET_LOG_LEVEL, Configuration
from esperd.config.settings import Settings
from esperd.control.identity import ServerIdentity
from esperd.control.supervisor import DiagnosticSection, Reloaded
from esperd.leyline.nonces import NonceStore
from esperd.leyline.verify import Verifier
from esperd.weatherlight.key_keeper import KeyKeeper


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


def open_keys(
    directory: Path, identity: ServerIdentity, end_streams: Callable[[], int], nonces: NonceStore | None = None
) -> tuple[Verifier, KeyKeeper]:
    """A verifier, and the keeper of its keys: those of `keys.toml` in the directory, if it is there."""
    ring = directory / "keys.toml"
    verifier = Verifier(
        keyring=None,
        audience=identity.server_id,
        epoch=identity.epoch,
        wall_clock=time.time,
        monotonic=time.monotonic,
        nonces=nonces,
    )
    keys = KeyKeeper(
        find_ring=lambda: ring if ring.exists() else None,
        revocations=directory / "revoked-keys.toml",
        verifier=verifier,
        end_streams=end_streams,
        clock=time.time,
        log=structlog.get_logger(),
    )
    keys.open()
    return verifier, keys
