"""Where a rollback would land, and what of the run it would take back.

Pure: from the answers of the daemon to plain values. The rule is the daemon's own: a step or a seed leads to the newest
good state of the present history; a checkpoint may be of any timeline.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from esper.ctl import words
from esper.ctl.history import END, Steps, is_on, last_of, steps_until
from esper.leyline.v1 import checkpoint_service_pb2, command_pb2, run_service_pb2, state_pb2, state_service_pb2

UNDONE = ("seed_operation", "optimizer_adjustment")
"""What a rollback takes back: pauses, breakers and emergencies belong to the run as it goes on, and stay."""
_BEFORE_SEED = re.compile(r"before seed ([1-9][0-9]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """What was typed after `--to`; one of the three is set."""

    checkpoint_id: str = ""
    global_step: int | None = None
    before_seed_id: str = ""

    @classmethod
    def read(cls, text: str) -> "Target":
        """A number is a step, `before seed N` is that; everything else names a checkpoint."""
        text = " ".join(text.split())
        seed = _BEFORE_SEED.fullmatch(text)
        if seed is not None:
            return cls(before_seed_id=seed[1])
        if text.isascii() and text.isdigit():
            return cls(global_step=int(text))
        return cls(checkpoint_id=text)


@dataclass(frozen=True, slots=True)
class Losses:
    """What a rollback takes back, each thing as a line."""

    num_steps: int
    training_s: float
    """At the present speed; 0 when that is not known."""
    going: tuple[str, ...]
    """Seeds that are in the model now and will not be."""
    fossils: tuple[str, ...]
    """Seeds that were fossilized since, and will not be."""
    returning: tuple[str, ...]
    """Seeds that were removed since, and come back."""
    stepping_back: tuple[str, ...]
    """Seeds that stay, in an earlier stage."""
    commands: tuple[command_pb2.Command, ...]
    """What had been asked and done since, oldest first."""


def find(
    target: Target, answer: run_service_pb2.GetRunResponse, germinated_step: int | None, tier: str = ""
) -> state_pb2.RestorePoint | None:
    """The state that a rollback goes to.

    Args:
        target: what was typed.
        answer: the run with its restore points.
        germinated_step: of the seed that the target names.
        tier: `fast` takes only what memory holds, `full` only what is on disk.
    """
    if target.checkpoint_id:
        named = (point for point in answer.restore_points if point.checkpoint_id == target.checkpoint_id)
        return next(named, None)
    newest = target.global_step if germinated_step is None else germinated_step - 1
    assert newest is not None  # a target names a checkpoint, a step, or a seed, whose step is given
    steps = steps_until(answer.timelines, answer.run.timeline)
    fitting = [
        point
        for point in answer.restore_points
        if point.is_good and point.global_step <= newest and is_on(steps, point.timeline, point.global_step)
        if (tier != "fast" or point.in_memory) and (tier != "full" or point.checkpoint_id)
    ]
    return max(fitting, key=lambda point: (point.timeline, point.global_step), default=None)


def on_disk(found: checkpoint_service_pb2.Checkpoint) -> state_pb2.RestorePoint:
    """A checkpoint as a state to go back to: of very many, the run shows only the newest by itself."""
    return state_pb2.RestorePoint(
        global_step=found.global_step,
        timeline=found.timeline,
        checkpoint_id=found.checkpoint_id,
        is_good=found.is_good,
        num_bytes=found.num_bytes,
    )


def losses(
    landing: state_pb2.RestorePoint,
    answer: run_service_pb2.GetRunResponse,
    stories: Iterable[state_service_pb2.GetSeedResponse],
    commands: Iterable[command_pb2.Command],
) -> Losses:
    """What lies between the landing state and now."""
    run = answer.run
    present = steps_until(answer.timelines, run.timeline)
    kept = steps_until(answer.timelines, landing.timeline, landing.global_step)
    num_steps = max(0, run.global_step - landing.global_step)
    lines: dict[str, list[str]] = {"going": [], "fossils": [], "returning": [], "stepping_back": []}
    for story in stories:
        _sort_in(story, present, kept, lines)
    undone = [
        one
        for one in commands
        if one.request.WhichOneof("payload") in UNDONE
        and is_on(present, one.timeline, one.global_step)
        and not is_on(kept, one.timeline, one.global_step)
    ]
    return Losses(
        num_steps,
        num_steps * run.step_ms / 1e3,
        tuple(lines["going"]),
        tuple(lines["fossils"]),
        tuple(lines["returning"]),
        tuple(lines["stepping_back"]),
        tuple(sorted(undone, key=lambda one: (one.sequence, one.global_step))),
    )


def _sort_in(
    story: state_service_pb2.GetSeedResponse, present: Steps, kept: Steps, lines: dict[str, list[str]]
) -> None:
    now, then = last_of(story.transitions, present), last_of(story.transitions, kept)
    stage_now, stage_then = _stage(now), _stage(then)
    seed = story.seed
    name = f"seed {seed.seed_id} ({seed.blueprint_id} at {seed.site})"
    if now is not None and stage_now == "FOSSILIZED" and stage_then != "FOSSILIZED":
        goes = f"will be {stage_then} again" if stage_then else "goes"
        lines["fossils"].append(f"{name}, fossilized at step {now.global_step}: {goes}")
    elif now is not None and stage_now and not stage_then:
        lines["going"].append(f"{name}, {stage_now} since step {now.global_step}")
    elif stage_then and not stage_now:
        what = f"{words.stage(now.target)} at step {now.global_step}" if now is not None else "left behind"
        lines["returning"].append(f"{name}, {what}: {stage_then} again")
    elif stage_now != stage_then:
        lines["stepping_back"].append(f"{name}, {stage_now} now: {stage_then} again")


def _stage(step: state_service_pb2.SeedTransition | None) -> str:
    """The stage of a seed that is in the model, else empty."""
    found = "" if step is None else words.stage(step.target)
    return "" if found in END else found


def hyperparameter_changes(commands: Sequence[command_pb2.Command]) -> list[command_pb2.Command]:
    """Those that changed learning rates or other hyper-parameters."""
    return [one for one in commands if one.request.WhichOneof("payload") == "optimizer_adjustment"]
