"""Timelines as a tree, and what of a run's history led to a given state.

Pure. A rollback goes on from an earlier state on a new timeline: what had come after that state is in the journal, but
no longer in the model. Steps alone therefore say nothing; a place in a run is a timeline and a step.
"""

from collections.abc import Iterable, Mapping

from esper.leyline.v1 import state_pb2, state_service_pb2

Steps = Mapping[int, int | None]
"""For each timeline of a history its last step that counts; None where it has no end yet."""
END = ("CULLED", "EMBARGOED", "RESETTING", "DORMANT", "TERMINATED")
"""Stages of a seed that is no longer in the model."""


def steps_until(timelines: Iterable[state_pb2.Timeline], timeline: int, last_step: int | None = None) -> Steps:
    """The history of a state: of `timeline` up to `last_step`, and of its parents up to their forks."""
    known = {one.timeline: one for one in timelines}
    found: dict[int, int | None] = {timeline: last_step}
    until = last_step
    one = known.get(timeline)
    while one is not None and one.parent:
        until = one.fork_step if until is None else min(until, one.fork_step)
        found[one.parent] = until
        one = known.get(one.parent)
    return found


def is_on(steps: Steps, timeline: int, global_step: int) -> bool:
    """Whether what happened at a place belongs to a history."""
    timeline = timeline or 1  # an older daemon knew one timeline only
    if timeline not in steps:
        return False
    until = steps[timeline]
    return until is None or global_step <= until


def last_of(
    transitions: Iterable[state_service_pb2.SeedTransition], steps: Steps
) -> state_service_pb2.SeedTransition | None:
    """The last thing that happened to a seed in a history; None when the seed is not in it."""
    lived = [step for step in transitions if is_on(steps, step.timeline, step.global_step)]
    return lived[-1] if lived else None
