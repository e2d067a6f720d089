"""Events of other kinds in the words of a notice, for those who watch what happens.

Pure. Transitions, checkpoints and timelines have rows of their own in the journal; in telemetry they are notices.
"""

from esperd.leyline.views import CheckpointEvent, NoticeEvent, RunResumed, TimelineEvent, TransitionEvent


def transition_notice(event: TransitionEvent) -> NoticeEvent:
    """A transition in the words of a notice, for those who watch events."""
    message = f"seed {event.seed_id} at {event.site}: {event.source.name} to {event.target.name} ({event.cause})"
    attributes = {
        "seed_id": str(event.seed_id),
        "site": event.site,
        "blueprint_id": event.blueprint_id,
        "source": event.source.name,
        "target": event.target.name,
        "cause": event.cause,
    }
    return NoticeEvent(
        "seed.transition",
        message,
        "info",
        event.global_step,
        event.revision,
        event.unix_s,
        attributes,
        event.timeline,
    )


def checkpoint_notice(event: CheckpointEvent, revision: int) -> NoticeEvent:
    """A checkpoint as a notice; `revision` is the state's newest."""
    message = f"checkpoint {event.checkpoint_id} ({event.kind.name.lower()}) of step {event.global_step} is on disk"
    attributes = {
        "checkpoint_id": event.checkpoint_id,
        "kind": event.kind.name,
        "num_bytes": str(event.num_bytes),
        "pause_ms": f"{event.pause_ms:.3f}",
        "write_ms": f"{event.write_ms:.3f}",
    }
    return NoticeEvent(
        "checkpoint.written",
        message,
        "info",
        event.global_step,
        revision,
        event.unix_s,
        attributes,
        event.timeline,
    )


def timeline_notice(event: TimelineEvent) -> NoticeEvent:
    """A rollback as a notice."""
    message = (
        f"timeline {event.timeline}: back from step {event.left_step} of timeline {event.parent} "
        f"to its step {event.fork_step} ({event.cause})"
    )
    attributes = {
        "timeline": str(event.timeline),
        "parent": str(event.parent),
        "fork_step": str(event.fork_step),
        "left_step": str(event.left_step),
        "checkpoint_id": event.checkpoint_id,
        "cause": event.cause,
        "removed_seed_ids": _numbers(event.removed_seed_ids),
        "restored_seed_ids": _numbers(event.restored_seed_ids),
    }
    return NoticeEvent(
        "timeline.opened",
        message,
        "warning",
        event.fork_step,
        event.revision,
        event.unix_s,
        attributes,
        event.timeline,
    )


def resumed_notice(event: RunResumed) -> NoticeEvent:
    """That a run was picked up again, as a notice."""
    state = f"checkpoint {event.checkpoint_id}" if event.checkpoint_id else "the beginning"
    message = f"the run goes on from {state} (step {event.global_step} of timeline {event.timeline})"
    attributes = {"checkpoint_id": event.checkpoint_id, "revision_offset": str(event.revision_offset)}
    return NoticeEvent(
        "run.resumed",
        message,
        "info",
        event.global_step,
        event.revision,
        event.unix_s,
        attributes,
        event.timeline,
    )


def _numbers(seed_ids: tuple[int, ...]) -> str:
    return ",".join(str(seed_id) for seed_id in seed_ids)
