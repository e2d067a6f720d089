"""Which checkpoints may go: a pure rule over what there is.

Any thread; knows no files. Whatever the rule does not name for keeping is given back for removal.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.reading import StoredCheckpoint

NUM_EMERGENCY_KEPT = 3
"""An emergency is often followed by others; the first ones of a series are no use once the last is known."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of each run, besides the newest good one."""

    keep: int
    """Newest scheduled ones."""
    keep_every_steps: int = 0
    """Those at a multiple of this step are kept for ever; 0 keeps none for ever."""
    keep_requested: int | None = None
    """Newest of those that were asked for by hand; None keeps all of them."""


def removable(
    checkpoints: Sequence[StoredCheckpoint], rule: Retention, protect: Collection[str] = ()
) -> list[StoredCheckpoint]:
    """Those of one run, given oldest first, that the rule lets go."""
    newest_of_kind = {
        CheckpointKind.SCHEDULED: rule.keep,
        CheckpointKind.EMERGENCY: NUM_EMERGENCY_KEPT,
        CheckpointKind.FINAL: 1,
        CheckpointKind.FORK: 1,
        CheckpointKind.REQUESTED: rule.keep_requested or 0,
    }
    kept = set(protect)
    for kind, num in newest_of_kind.items():
        of_kind = [c.manifest.checkpoint_id for c in checkpoints if c.manifest.kind is kind]
        kept.update(of_kind[max(len(of_kind) - num, 0) :])
    kept.update([c.manifest.checkpoint_id for c in checkpoints if c.is_good][-1:])
    return [c for c in checkpoints if c.manifest.checkpoint_id not in kept and not _is_kept_for_ever(c, rule)]


def _is_kept_for_ever(checkpoint: StoredCheckpoint, rule: Retention) -> bool:
    if checkpoint.manifest.kind is CheckpointKind.REQUESTED and rule.keep_requested is None:
        return True
    return rule.keep_every_steps > 0 and checkpoint.manifest.global_step % rule.keep_every_steps == 0
