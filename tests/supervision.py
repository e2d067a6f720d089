"""The process around a control plane, for tests and benchmarks that serve one without a daemon."""

from dataclasses import dataclass, field


@dataclass
class RecordingSupervisor:
    """Notes what it is asked."""

    started: list[str] = field(default_factory=list)
    num_drains: int = 0

    def start_run(self) -> str:
        self.started.append(f"run-{len(self.started) + 2}")
        return self.started[-1]

    def drain(self) -> None:
        self.num_drains += 1
