"""Going on with a run that an earlier start of the daemon began: its newest sound checkpoint, then its journal.

Training thread only, before the first step. A damaged checkpoint is passed over, with a notice, for the one before it;
without any the run begins anew from its random seed, which is the same run, and the journal has the rest.

A checkpoint counts from when the journal knows it: its row follows those of all that happened before, so that nothing
that the state contains is missing there. One that came to the disk just before the daemon was killed, and not into the
journal, may hold what the journal has never heard of; it goes.
"""

from esperd.leyline.errors import EsperdError
from esperd.leyline.views import RunResumed
from esperd.leyline.vocabulary import CheckpointKind, TrainerPhase
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.past import ReadPast, RunPast
from esperd.tolaria import saved_state
from esperd.tolaria.catch_up import CatchUp
from esperd.tolaria.dispatch import Dispatcher
from esperd.tolaria.keeping import BY_CHANCE, Keeper
from esperd.tolaria.parts import Parts
from esperd.tolaria.safe_point import SafePoint
from esperd.tolaria.state_tree import read_files, rebuild


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
    publisher, progress = parts.publisher, parts.progress
    first_revision = publisher.revision
    listed = [] if store is None else sorted(store.list(progress.run_id), key=_age)
    stored = list(listed)
    manifest, past = _restore(parts, store, stored, read_past)
    catch_up = CatchUp(
        past,
        progress.position,
        first_revision=first_revision,
        journal_revision=0 if manifest is None else manifest.journal_revision,
    )
    keeper.adopt(stored, None if manifest is None else progress.position)
    if store is not None:
        left = {one.path for one in listed} - {one.path for one in stored}
        keeper.avoid(path.name for path in left if path.exists())
        keeper.avoid(name for name, _ in store.damaged(progress.run_id))
    progress.resumed_from = "" if manifest is None else manifest.checkpoint_id
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
    parts.executor.restore_kernels(progress.global_step)
    publisher.is_known = catch_up.knows
    sequence = past.last_sequence if manifest is None else max(manifest.sequence, past.last_sequence)
    dispatcher.resume(catch_up, past.unsettled, sequence)
    safe_point.resume(catch_up)
    progress.phase = TrainerPhase.CATCHING_UP
    publisher.bump()
    publisher.publish()


def _restore(
    parts: Parts, store: CheckpointStore | None, stored: list[StoredCheckpoint], read_past: ReadPast
) -> tuple[Manifest | None, RunPast]:
    """Restore the newest of `stored` that is sound and known to the journal; what cannot be used leaves the list.

    A run that must be exact goes on from a state that it keeps by itself: one that came by chance, when the daemon left
    for instance, lacks the states between it and the one before, to which the undisturbed run could go back. Without
    any the run is at its beginning.
    """
    by_chance: list[StoredCheckpoint] = []
    manifest = None
    while stored and manifest is None:
        newest = stored[-1].manifest
        if parts.settings.training.deterministic and newest.kind in BY_CHANCE:
            by_chance.append(stored.pop())
            continue
        past = read_past(
            after_sequence=newest.sequence, after_revision=newest.journal_revision, state_revision=newest.revision
        )
        if not past.counts(newest.checkpoint_id):
            assert store is not None  # it is where they come from
            _remove(parts, store, stored.pop())
        elif _restored(parts, stored[-1]):
            manifest = newest
        else:
            stored.pop()
    if manifest is None:
        parts.count_flops()
        past = read_past(after_sequence=0, after_revision=0, state_revision=0)
    for checkpoint in by_chance:
        if past.counts(checkpoint.manifest.checkpoint_id):
            stored.append(checkpoint)
        else:
            assert store is not None  # it is where they come from
            _remove(parts, store, checkpoint)
    return manifest, past


def _restored(parts: Parts, checkpoint: StoredCheckpoint) -> bool:
    """Put the run into this state; False when it cannot be read."""
    try:
        captured = read_files(checkpoint)
        tree = rebuild(captured)
    except EsperdError as error:
        parts.note("checkpoint.damaged", error.message, "error", checkpoint_id=checkpoint.manifest.checkpoint_id)
        return False
    saved_state.restore(parts, tree, within_run=False)
    captured.release()
    return True


def _remove(parts: Parts, store: CheckpointStore, checkpoint: StoredCheckpoint) -> None:
    """Its state will be reached again, and written with what the journal then knows."""
    manifest = checkpoint.manifest
    try:
        store.remove(manifest.checkpoint_id, manifest.run_id)
    except EsperdError as error:
        parts.note("checkpoint.not_pruned", error.message, "warning", checkpoint_id=manifest.checkpoint_id)


def _age(checkpoint: StoredCheckpoint) -> tuple[tuple[int, int], int, bool, float]:
    manifest = checkpoint.manifest
    return _position(checkpoint), manifest.sequence, manifest.kind is CheckpointKind.FINAL, manifest.written_unix_s


def _position(checkpoint: StoredCheckpoint) -> tuple[int, int]:
    return checkpoint.manifest.timeline, checkpoint.manifest.global_step
