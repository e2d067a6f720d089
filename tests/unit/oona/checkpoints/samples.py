"""Manifests and small checkpoints for tests."""

from dataclasses import replace

from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.store import CheckpointStore

RUN = "digits-1a2b"
DRAFT = Manifest(
    checkpoint_id="t001-s000000500",
    kind=CheckpointKind.SCHEDULED,
    run_id=RUN,
    timeline=1,
    global_step=500,
    epoch=4,
    sequence=17,
    revision=90,
    journal_revision=88,
    written_unix_s=1_790_000_000.25,
    esperd_version="0.1.0",
    torch_version="2.13.0",
    task="my_pkg.my_task:build",
    note="",
    config={"run": {"num_steps": 1000}, "growth": {"sites": ["blocks.*"], "rho": 0.5}},
    num_parameters=12_345,
    pause_ms=1.5,
)
FILES = {"model.safetensors": b"\x01\x02" * 1000, "state.json": b"{}\n", "empty.safetensors": b""}


def draft(step: int, kind: CheckpointKind = CheckpointKind.SCHEDULED, timeline: int = 1, run_id: str = RUN) -> Manifest:
    """A manifest whose id tells timeline and step."""
    checkpoint_id = f"t{timeline:03d}-s{step:09d}"
    if kind is not CheckpointKind.SCHEDULED:
        checkpoint_id += f"-{kind.name.lower()}"
    return replace(
        DRAFT, checkpoint_id=checkpoint_id, kind=kind, run_id=run_id, timeline=timeline, global_step=step, epoch=0
    )


def write(store: CheckpointStore, manifest: Manifest = DRAFT) -> StoredCheckpoint:
    """A small checkpoint on disk."""
    with store.begin(manifest.checkpoint_id) as pending:
        for name, data in FILES.items():
            with pending.file(name) as file:
                file.write(data[: len(data) // 2])
                file.write(memoryview(data)[len(data) // 2 :])
        return pending.commit(manifest)
