"""Going on with a run that an earlier start of the daemon began: its newest sound checkpoint, then its journal.

Training thread only, before the first step. A damaged checkpoint is passed over, with a notice, for the one before it;
without any the run begins anew from its random seed, which is the same run, and the journal has the rest.
"""

from collections.abc import Iterator

from esperd.leyline.errors import EsperdError
from esperd.leyline.views import RunResumed
from esperd.leyline.vocabulary import CheckpointKind, TrainerPhase
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.past import ReadPast
from esperd.tolaria import saved_state
from esperd.tolaria.catch_up import CatchUp
from esperd.tolaria.dispatch import Dispatcher
from esperd.tolaria.keeping import Keeper
from esperd.tolaria.parts import Parts
from esperd.tolaria.safe_point import SafePoint
from esperd.tolaria.state_tree import Captured, read_files, rebuild


def resume(
    parts: Parts,
    store: CheckpointStore | None,
    keeper: Keeper,
    dispatcher: Dispatcher,
    safe_point: SafePoint,
    read_past: ReadPast,
) -> None:
    """Restore the run and hand the journal's past to the dispatcher.

    Raises EsperdError CHECKPOINT_MISMATCH when a sound checkpoint does not fit the task.
    """
    stored = () if store is None else store.list(parts.progress.run_id)
    manifest = _restore(parts, stored)
    publisher, progress = parts.publisher, parts.progress
    past = read_past(
        after_sequence=0 if manifest is None else manifest.sequence,
        after_revision=0 if manifest is None else manifest.journal_revision,
        state_revision=0 if manifest is None else manifest.revision,
    )
    catch_up = CatchUp(past, progress.position)
    if manifest is not None:
        keeper.adopt([one for one in stored if _position(one) <= progress.position], progress.position)
    progress.resumed_from = "" if manifest is None else manifest.checkpoint_id
    first_revision = publisher.revision
    parts.bridge.record(
        RunResumed(
            run_id=progress.run_id,
            checkpoint_id=progress.resumed_from,
            timeline=progress.timeline,
            global_step=progress.global_step,
            revision=first_revision,
            revision_offset=past.revision_offset,
            unix_s=parts.clock(),
        )
    )
    publisher.is_known = catch_up.knows
    dispatcher.resume(catch_up, past.unsettled, past.last_sequence)
    safe_point.resume(catch_up)
    progress.phase = TrainerPhase.CATCHING_UP
    publisher.bump()
    publisher.publish()


def _restore(parts: Parts, stored: tuple[StoredCheckpoint, ...]) -> Manifest | None:
    """Restore the newest checkpoint that is sound; None when there is none, and the run is at its beginning."""
    for checkpoint, captured in _sound(parts, stored):
        saved_state.restore(parts, rebuild(captured), within_run=False)
        captured.release()
        return checkpoint.manifest
    parts.count_flops()
    return None


def _sound(parts: Parts, stored: tuple[StoredCheckpoint, ...]) -> Iterator[tuple[StoredCheckpoint, Captured]]:
    """Checkpoints that can be read, newest first."""
    for checkpoint in sorted(stored, key=_age, reverse=True):
        try:
            yield checkpoint, read_files(checkpoint)
        except EsperdError as error:
            parts.note("checkpoint.damaged", error.message, "error", checkpoint_id=checkpoint.manifest.checkpoint_id)


def _age(checkpoint: StoredCheckpoint) -> tuple[tuple[int, int], int, bool, float]:
    manifest = checkpoint.manifest
    return _position(checkpoint), manifest.sequence, manifest.kind is CheckpointKind.FINAL, manifest.written_unix_s


def _position(checkpoint: StoredCheckpoint) -> tuple[int, int]:
    return checkpoint.manifest.timeline, checkpoint.manifest.global_step
