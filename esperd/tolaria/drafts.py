"""What a checkpoint is called, and what its manifest says before its files are there.

Training thread only; pure but for the numbers of the run that it reads. An id says timeline, step and kind, so that a
run that is done again after a restart gives the same state the same id.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.metadata import version

import torch

from esperd.leyline.redact import redact
from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.manifest import Manifest
from esperd.tolaria.catch_up import Mark, Position
from esperd.tolaria.parts import Parts

_MAY_COME_TWICE = frozenset({CheckpointKind.FINAL, CheckpointKind.REQUESTED})
"""Kinds of which one safe point may see several, which hold more and more of what happens at it."""


class Drafts:
    """The ids that are taken, and new manifests."""

    def __init__(self, parts: Parts, mark: Callable[[], Mark]) -> None:
        """`mark` tells where the state of now lies in the journal."""
        self._parts = parts
        self._mark = mark
        self._taken: set[str] = set()
        self._unusable: set[str] = set()
        self._config = dict(redact(None, "", asdict(parts.settings)))
        self._esperd_version = version("esperd")

    def new_id(self, kind: CheckpointKind, position: Position) -> str:
        """The id of a state; one that is taken already means that this very state was written."""
        suffix = "" if kind is CheckpointKind.SCHEDULED else f"-{kind.name.lower()}"
        name = f"t{position[0]:03d}-s{position[1]:09d}{suffix}"
        number, first = 1, name
        while name in self._unusable or (kind in _MAY_COME_TWICE and name in self._taken):
            number += 1
            name = f"{first}-{number}"
        return name

    def is_taken(self, checkpoint_id: str) -> bool:
        """Whether there is such a checkpoint, or will be."""
        return checkpoint_id in self._taken

    def take(self, checkpoint_id: str) -> None:
        """There is such a checkpoint, or will be."""
        self._taken.add(checkpoint_id)

    def give_back(self, checkpoint_id: str) -> None:
        """It could not be written, or is gone."""
        self._taken.discard(checkpoint_id)

    def avoid(self, names: Iterable[str]) -> None:
        """Checkpoints with these ids lie on disk and cannot be used: no other one may take their ids."""
        self._unusable.update(names)

    def manifest(
        self, kind: CheckpointKind, note: str, checkpoint_id: str, position: Position, pause_ms: float
    ) -> Manifest:
        """What the checkpoint says about itself."""
        parts, progress = self._parts, self._parts.progress
        timeline, step = position
        mark = self._mark()
        return Manifest(
            checkpoint_id=checkpoint_id,
            kind=kind,
            run_id=progress.run_id,
            timeline=timeline,
            global_step=step,
            epoch=progress.epoch,
            sequence=mark.sequence,
            revision=mark.revision,
            journal_revision=mark.journal_revision,
            written_unix_s=parts.clock(),
            esperd_version=self._esperd_version,
            torch_version=str(torch.__version__),
            task=progress.task,
            note=note,
            config=self._config,
            num_parameters=progress.num_host_parameters,
            pause_ms=pause_ms,
        )
