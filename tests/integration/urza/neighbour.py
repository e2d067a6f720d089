"""One of several daemons on one store: run as `python -m tests.integration.urza.neighbour DIRECTORY NUMBER`."""

import sys
from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.urza.store import open_store
from tests.unit.urza.samples import World, library, make, report_on, upload

MADE = [make(seed, 40_000) for seed in range(3)]


NUM_ROUNDS = 12
EXPECTED = ("KERNEL_CORRUPT", "KERNEL_NOT_OFFERED", "KERNEL_STORE_UNAVAILABLE")


def live(directory: Path, number: int) -> None:
    """One daemon that uploads, validates, uses and deletes the same kernels as the others, at once with them."""
    run = library(directory / f"run{number}", open_store("", directory / "store"), World())
    for turn in range(NUM_ROUNDS):
        made = MADE[(turn + number) % len(MADE)]
        try:
            upload(run, made, 16_384)
            run.offer(made.artifact_id, *report_on(made.artifact_id))
            folder = directory / f"local{number}" / made.artifact_id
            run.open_local_copy(made.artifact_id, folder)
            for role, file in run.kernels[made.artifact_id].manifest.files.items():
                assert (folder / file.name).read_bytes() == made.libraries[role]
            if turn % 3 == number % 3:
                run.delete(made.artifact_id, "to begin anew")
        except EsperdError as error:
            # Another one has just removed it, or is just writing it again.
            if error.reason not in EXPECTED:
                raise
    run.close()


if __name__ == "__main__":
    live(Path(sys.argv[1]), int(sys.argv[2]))
