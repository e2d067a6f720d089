"""A library's life, killed at one place after another: a process that forks a child for each.

Run as `python -m tests.integration.urza.life DIRECTORY`. It prints one line for each place, and exits 1 at the first
after which something promised is gone.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from esperd.leyline.failpoints import set_hook
from esperd.leyline.vocabulary import KernelFileRole, KernelState
from esperd.urza.library import UPLOADS_NAME
from esperd.urza.local_store import HIDDEN
from esperd.urza.store import open_store
from tests.unit.urza.samples import Made, World, library, make, report_on

GOOD, BAD, GONE, LARGE = (make(seed, num_bytes) for seed, num_bytes in ((1, 3000), (2, 50), (3, 200), (4, 9000)))
CHUNK_BYTES = 1024
QUOTA_BYTES = 36_100
"""Not enough for all: LARGE drives BAD out."""


class Life:
    """The steps of a life; those that were acknowledged are not taken again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.acknowledged = directory / "acknowledged"
        directory.mkdir(parents=True, exist_ok=True)
        store = open_store("", directory / "store")
        self.world = World(now_unix_s=time.time())
        self.library = library(directory / "run", store, self.world, quota_bytes=QUOTA_BYTES)
        self.steps: list[tuple[str, Callable[[], object]]] = [
            ("send good", lambda: self.send(GOOD)),
            ("offer good", lambda: self.library.offer(GOOD.artifact_id, *report_on(GOOD.artifact_id))),
            ("pin good", lambda: self.library.pin(GOOD.artifact_id, True)),
            ("copy good", lambda: self.library.open_local_copy(GOOD.artifact_id, directory / "local" / "good")),
            ("send bad", lambda: self.send(BAD)),
            ("quarantine bad", lambda: self.library.quarantine(BAD.artifact_id, "crashed")),
            ("send gone", lambda: self.send(GONE)),
            ("delete gone", lambda: self.library.delete(GONE.artifact_id, "not wanted")),
            ("send large", lambda: self.send(LARGE)),
            ("offer large", lambda: self.library.offer(LARGE.artifact_id, *report_on(LARGE.artifact_id))),
        ]

    def live(self) -> None:
        """Take every step that is left."""
        done = self.acknowledgements()
        for name, step in self.steps:
            if name not in done:
                step()
                self.acknowledge(name)

    def send(self, made: Made) -> None:
        kernel = self.library.create_upload(made.manifest, made.signature, "tezzeret")
        for part in kernel.progress:
            for offset in range(part.num_received, part.num_bytes, CHUNK_BYTES):
                data = made.libraries[part.role][offset : offset + CHUNK_BYTES]
                self.library.add_chunk(made.artifact_id, part.role, offset, data)
                self.acknowledge(f"received {made.artifact_id} {part.role.name} {offset + len(data)}")
        assert self.library.finish(made.artifact_id).is_stored

    def acknowledge(self, what: str) -> None:
        with self.acknowledged.open("a") as file:
            file.write(what + "\n")

    def acknowledgements(self) -> list[str]:
        return self.acknowledged.read_text().splitlines() if self.acknowledged.exists() else []


def check(life: Life) -> None:
    """What was acknowledged before the kill is there."""
    done = life.acknowledgements()
    kernels = life.library.kernels
    for line in done:
        if line.startswith("received"):
            _, artifact_id, role, num = line.split()
            kernel = kernels[artifact_id]
            (part,) = [part for part in kernel.progress if part.role is KernelFileRole[role]]
            assert kernel.state is KernelState.REMOVED or part.num_received >= int(num), line
    expected = {
        "send good": (GOOD, KernelState.VALIDATING),
        "offer good": (GOOD, KernelState.OFFERED),
        "quarantine bad": (BAD, KernelState.QUARANTINED),
        "delete gone": (GONE, KernelState.REMOVED),
        "offer large": (LARGE, KernelState.OFFERED),
    }
    for line in (line for line in done if line in expected):
        made, state = expected[line]
        assert kernels[made.artifact_id].state >= state, (line, kernels[made.artifact_id].state)
    if "pin good" in done:
        assert kernels[GOOD.artifact_id].pinned
    for kernel in kernels.values():
        if kernel.is_stored:
            assert all(life.library.read_library(kernel.artifact_id, role) for role in kernel.manifest.files)


def check_end(life: Life) -> None:
    """The end of a life is the same, however often it was cut."""
    states = [life.library.kernels[made.artifact_id].state.name for made in (GOOD, BAD, GONE, LARGE)]
    assert states == ["OFFERED", "REMOVED", "REMOVED", "OFFERED"], states
    life.world.now_unix_s += 2 * 86_400.0  # what a kill has left half-removed is then swept
    life.library.rescan()
    assert {path.name for path in (life.directory / "store").iterdir()} == {GOOD.artifact_id, LARGE.artifact_id}
    assert list((life.directory / "run" / UPLOADS_NAME).iterdir()) == []
    copied = {path.name for path in (life.directory / "local" / "good").iterdir()}
    assert {file.name for file in life.library.kernels[GOOD.artifact_id].manifest.files.values()} < copied
    assert not any(name.startswith(HIDDEN) for name in copied)


def passings(directory: Path) -> list[tuple[str, int]]:
    """The places that an undisturbed life passes: the first and the last time at each."""
    counts: dict[str, int] = {}

    def count(name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    set_hook(count)
    life = Life(directory)
    life.live()
    set_hook(None)
    check_end(life)
    life.library.close()
    return sorted({(name, number) for name, num in counts.items() for number in (1, (num + 1) // 2, num)})


def killed_at(directory: Path, name: str, number: int) -> None:
    """A child lives until it passes a place for the n-th time, where it is killed."""
    pid = os.fork()
    if pid == 0:
        left = [number]

        def kill(passed: str) -> None:
            left[0] -= passed == name
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        set_hook(kill)
        with contextlib.suppress(BaseException):
            Life(directory).live()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, (name, number)


def main() -> None:
    root = Path(sys.argv[1])
    for name, number in passings(root / "undisturbed"):
        directory = root / f"{name}-{number}"
        killed_at(directory, name, number)
        life = Life(directory)
        check(life)
        life.live()
        check(life)
        check_end(life)
        life.library.close()
        print("killed at", name, number, flush=True)


if __name__ == "__main__":
    main()
