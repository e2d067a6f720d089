"""The story of one seed in plain sentences: who asked for what, when and why, what the gates saw, what rollbacks did.

Pure: from the daemon's answers to dated sentences. Ends with how the seed stands now.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from esper.ctl import words
from esper.ctl.history import END, Steps, last_of, steps_until
from esper.ctl.kernel_tables import short
from esper.ctl.output import number
from esper.ctl.timelines import cause_in_words
from esper.leyline.v1 import command_pb2, state_pb2, state_service_pb2, vocabulary_pb2

_PLACES = {"at_most": "at most", "at_least": "at least", "below": "below", "above": "above", "equal": "equal to"}
_VERDICTS = {"PASSED": "passed", "FAILED": "failed", "UNMEASURED": "had nothing to measure yet"}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a seed."""

    time_ns: int
    global_step: int
    timeline: int
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the daemon knows of one seed."""

    story: state_service_pb2.GetSeedResponse
    timelines: Sequence[state_pb2.Timeline]
    commands: Sequence[command_pb2.Command]
    """Those that name the seed, or made it."""
    causes: Mapping[str, command_pb2.Command]
    """Commands by id: what transitions and rollbacks name as their cause."""


def events(facts: Facts) -> list[Event]:
    """Everything in the order in which it happened."""
    found = [
        *(_transition(facts, step) for step in facts.story.transitions),
        *(_command(one) for one in facts.commands if _says_more(facts, one)),
        *_rollbacks(facts),
    ]
    return sorted(found, key=lambda event: event.time_ns)


def ending(facts: Facts) -> str:
    """How the seed stands now."""
    seed = facts.story.seed
    timeline = max((one.timeline for one in facts.timelines), default=1)
    last = last_of(facts.story.transitions, steps_until(facts.timelines, timeline))
    if last is None:
        return f"Now: seed {seed.seed_id} is not part of the run; a rollback has left it behind."
    stage = words.stage(last.target)
    since = f"since step {last.global_step} (timeline {last.timeline or 1})"
    if stage == "FOSSILIZED":
        return f"Now: seed {seed.seed_id} is part of the model for good, {since}."
    if stage in END:
        return f"Now: seed {seed.seed_id} is gone, {since}{_note(seed)}."
    alpha = f", alpha {number(seed.alpha)}" if seed.alpha else ""
    return f"Now: seed {seed.seed_id} is {stage} {since}{alpha}{_note(seed)}."


def _note(seed: state_pb2.SeedState) -> str:
    return f": {seed.note}" if seed.note else ""


def _transition(facts: Facts, step: state_service_pb2.SeedTransition) -> Event:
    seed, target = facts.story.seed, words.stage(step.target)
    command = facts.causes.get(step.cause)
    if target == "GERMINATED":
        what = f"seed {seed.seed_id} germinated: {seed.blueprint_id} at {seed.site}"
    elif target in END:
        what = f"it went from {words.stage(step.source)} to {target}"
    else:
        what = f"it became {target} after {words.stage(step.source)}"
    text = f"{what}, {_because(step.cause, command)}."
    return Event(step.time.ToNanoseconds(), step.global_step, step.timeline or 1, text + _gate(step.gate))


def _because(cause: str, command: command_pb2.Command | None) -> str:
    if command is not None:
        reason = f' because "{command.request.reason}"' if command.request.reason else " without giving a reason"
        return f"as {command.principal} had asked{reason} [{command.command_id}]"
    return "by itself, its gate having passed" if cause == "auto" else f"by the rule {cause}"


def _gate(result: state_pb2.GateResult) -> str:
    if not result.gate:
        return ""
    verdict = words.verdict(result.verdict)
    seen = "; ".join(_evidence(item) for item in result.evidence)
    purpose = f" ({result.purpose})" if result.purpose else ""
    return f" {words.gate(result.gate)}{purpose} {_VERDICTS.get(verdict, verdict)}{f': {seen}' if seen else ''}."


def _evidence(item: state_pb2.GateEvidence) -> str:
    asked = f"{_PLACES.get(item.sense, item.sense)} {number(item.threshold)}"
    held = "" if item.passed else ", which did not hold"
    samples = f" over {item.num_samples} samples" if item.num_samples else ""
    detail = f" ({item.detail})" if item.detail else ""
    return f"{item.name.replace('_', ' ')} was {number(item.value)}{samples}, wanted {asked}{held}{detail}"


def _says_more(facts: Facts, command: command_pb2.Command) -> bool:
    """Whether no transition tells of the command already."""
    return all(step.cause != command.command_id for step in facts.story.transitions)


def _command(command: command_pb2.Command) -> Event:
    reason = f' because "{command.request.reason}"' if command.request.reason else ""
    text = f"{command.principal} asked to {_wish(command.request)}{reason} [{command.command_id}]: {_outcome(command)}."
    return Event(command.update_time.ToNanoseconds(), command.global_step, command.timeline or 1, text)


def _wish(request: command_pb2.AdaptationCommand) -> str:
    match request.WhichOneof("payload"):
        case "optimizer_adjustment":
            values = request.optimizer_adjustment.hyperparameters
            changes = ", ".join(f"{name} = {number(value)}" for name, value in sorted(values.items()))
            return f"set {changes or 'its optimizer back'}"
        case "kernel_swap":
            name = request.kernel_swap.artifact_id
            return f"have it compute by kernel {short(name)}" if name else "have it compute by its eager module"
    return words.operation(request.seed_operation.operation).replace("_", " ").lower()


def _outcome(command: command_pb2.Command) -> str:
    match command.state:
        case vocabulary_pb2.COMMAND_STATE_APPLIED:
            return "done"
        case vocabulary_pb2.COMMAND_STATE_ACCEPTED:
            return "it waits for its safe point"
    state = words.command_state(command.state).lower()
    return f"{state}, {command.error.message.rstrip('.')}" if command.error.message else state


def _rollbacks(facts: Facts) -> Iterator[Event]:
    """What each rollback did to this seed; those that found it as they left it are not told."""
    known: list[state_pb2.Timeline] = []
    for one in sorted(facts.timelines, key=lambda found: found.timeline):
        before = steps_until(known, one.timeline - 1, one.left_step)
        known.append(one)
        if not one.parent:
            continue
        kept = steps_until(known[:-1], one.parent, one.fork_step)
        change = _change(facts, before, kept)
        if change:
            cause = cause_in_words(one.cause, facts.causes.get(one.cause))
            text = (
                f"a rollback {cause} went back from step {one.left_step} to step {one.fork_step} of timeline "
                f"{one.parent} and opened timeline {one.timeline}: {change}."
            )
            yield Event(one.open_time.ToNanoseconds(), one.fork_step, one.timeline, text)


def _change(facts: Facts, before: Steps, kept: Steps) -> str:
    seed_id = facts.story.seed.seed_id
    left, back = (_stage(last_of(facts.story.transitions, steps)) for steps in (before, kept))
    if left == back:
        return f"seed {seed_id} stayed {left}, as it had been at that step" if left and left not in END else ""
    if not back:
        return f"seed {seed_id} had not germinated then, so it is gone from the run" if left not in END else ""
    if back in END:
        return f"seed {seed_id} is {back} again"
    if not left or left in END:
        return f"seed {seed_id} came back as {back}"
    return f"seed {seed_id} is {back} again, no longer {left}"


def _stage(step: state_service_pb2.SeedTransition | None) -> str:
    return "" if step is None else words.stage(step.target)


def causes_of(
    transitions: Iterable[state_service_pb2.SeedTransition], timelines: Iterable[state_pb2.Timeline]
) -> set[str]:
    """Everything that is named as a cause."""
    return {step.cause for step in transitions} | {one.cause for one in timelines}
