"""What must hold of every run, whatever was done to it: pure functions from a recorded history to what is wrong.

Each returns one line for each violation, so an empty tuple is a pass. None of them knows how the history came about.
`test_validators.py` shows for each of them a wrong history that it catches.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import safe_open

from esperd.kasmina.lifecycle import TABLE
from esperd.leyline.vocabulary import CommandState, Operation, Stage
from esperd.oona.audit_chain import verify
from esperd.oona.records import AuditEntry, AuditRow
from tests.robustness.history import CheckpointRow, History, OutcomeRow, TransitionRow

Violations = tuple[str, ...]
Validator = Callable[[History], Violations]

_FINAL = tuple(int(state) for state in CommandState if state.is_final)
_APPLIED = int(CommandState.APPLIED)
_LEGAL = {(stage.name, rule.target.name) for (stage, _), rule in TABLE.items()}
_TARGETS = {
    int(Operation.GERMINATE): (Stage.GERMINATED.name,),
    int(Operation.START_TRAINING): (Stage.TRAINING.name,),
    int(Operation.START_GRAFTING): (Stage.BLENDING.name,),
    int(Operation.STABILIZE): (Stage.SHADOWING.name,),
    int(Operation.EVALUATE): (Stage.PROBATIONARY.name,),
    int(Operation.FOSSILIZE): (Stage.FOSSILIZED.name,),
    int(Operation.CULL): (Stage.CULLED.name,),
    int(Operation.CANCEL): (Stage.CULLED.name,),
    int(Operation.ADVANCE): tuple(stage.name for stage in Stage),
}
"""Where the one transition of an applied seed operation leads; others make none."""


def no_lost_command(history: History) -> Violations:
    """NoLostCommand: whatever a client was told is accepted has its row, under the id that it was told."""
    rows = {row.request_id: row.command_id for row in history.commands}
    return tuple(
        f"{answer} was given; the journal has {rows.get(answer.request_id)}"
        for answer in history.answers
        if answer.request_id not in rows or answer.command_id not in ("", rows[answer.request_id])
    )


def exactly_one_outcome(history: History) -> Violations:
    """ExactlyOneOutcome: every command of a finished run has one final outcome, the one that clients were told."""
    counts = Counter(row.command_id for row in history.outcomes)
    known = {row.command_id for row in history.commands}
    by_id = {row.command_id: row for row in history.outcomes}
    wrong = [f"{row.command_id} has {counts[row.command_id]} outcomes" for row in history.commands
             if counts[row.command_id] != 1]  # fmt: skip
    wrong += [f"outcome of the unknown command {name}" for name in counts if name not in known]
    wrong += [f"{row.command_id} ended as {row.state}" for row in history.outcomes if row.state not in _FINAL]
    for told in history.told:
        row = by_id.get(told.command_id)
        if row is None or (row.state, row.global_step) != (told.state, told.global_step):
            wrong.append(f"a client was told {told}, the journal has {row}")
    return tuple(wrong)


def no_double_apply(history: History) -> Violations:
    """NoDoubleApply: sequence numbers rise without a gap; an applied command has one effect, and only it has one.

    A number that is missing was given to an outcome that the journal refused: of a command that had one already.
    """
    numbers = [0, *(row.sequence for row in history.outcomes if row.sequence)]
    wrong = [f"sequence {later} after {earlier}" for earlier, later in pairwise(numbers) if later != earlier + 1]
    kinds = {row.command_id: row for row in history.commands}
    effects: defaultdict[str, list[str]] = defaultdict(list)
    for transition in history.transitions:
        if transition.cause in kinds:
            effects[transition.cause].append(transition.target)
    for opened in history.timelines:
        if opened.cause in kinds:
            effects[opened.cause].append("timeline")
    applied = {row.command_id for row in history.outcomes if row.state == _APPLIED}
    for command_id, command in kinds.items():
        targets = ("timeline",) if command.kind == "rollback" else _TARGETS.get(command.operation, ())
        found = effects.get(command_id, [])
        wanted = 1 if command_id in applied and targets else 0
        if len(found) != wanted or any(one not in targets for one in found):
            wrong.append(f"{command.request_id or command_id}: {wanted} effects wanted, found {found}")
    seeds = Counter(row.seed_id for row in history.transitions if row.source == Stage.DORMANT.name)
    germinations = {row.cause for row in history.transitions if row.target == Stage.GERMINATED.name}
    if sum(seeds.values()) != len(germinations):
        wrong.append(f"{sum(seeds.values())} germinations by {len(germinations)} commands")
    return tuple(wrong)


def revisions_increase(history: History) -> Violations:
    """RevisionsIncrease: of applied commands strictly, in everything a client saw never back, also over restarts."""
    applied = [row.revision for row in history.outcomes if row.state == _APPLIED and row.sequence]
    wrong = [f"outcome at revision {later} after {earlier}" for earlier, later in pairwise(applied) if later <= earlier]
    for earlier, later in pairwise(history.sightings):
        is_new_start = later.start > earlier.start
        if later.start < earlier.start or later.revision < earlier.revision + is_new_start:
            wrong.append(f"{later} was seen after {earlier}")
    return tuple(wrong)


def keeps_its_step(history: History) -> Violations:
    """KeepsItsStep: a command with a step of its own got its outcome at that step, or at once if it came too late."""
    commands = {row.command_id: row for row in history.commands}
    forks = {row.timeline: row.fork_step for row in history.timelines}
    wrong = []
    for row in history.outcomes:
        command = commands.get(row.command_id)
        if command is None or not command.apply_at_step or not _is_of_its_time(row):
            continue
        due = max(command.apply_at_step, command.accepted_step)
        skipped = forks.get(row.timeline, -1) == row.global_step > due  # a rollback led to a state beyond it
        if not skipped and not _is_at(row.global_step, due, is_late=command.accepted_step >= command.apply_at_step):
            wrong.append(f"{command.request_id}: due at {due}, outcome at {row.global_step}")
    return tuple(wrong)


def story_is_whole(history: History) -> Violations:
    """StoryIsWhole: every seed's transitions follow the lifecycle's table, in each timeline from where it forked."""
    seen = Counter((r.timeline, r.global_step, r.seed_id, r.source, r.target) for r in history.transitions)
    wrong = [f"twice: {key}" for key, count in seen.items() if count > 1]
    wrong += [f"not a legal step: {row}" for row in history.transitions if (row.source, row.target) not in _LEGAL]
    for timeline in sorted({row.timeline for row in history.transitions}):
        own = [row for row in history.transitions if row.timeline == timeline]
        for seed_id in sorted({row.seed_id for row in own}):
            wrong += _broken_path(history, timeline, seed_id, [row for row in own if row.seed_id == seed_id])
    return tuple(wrong)


def timelines_fork(history: History) -> Violations:
    """TimelinesFork: numbers rise by one, parents exist, forks lie inside them, and nothing happens in one left."""
    wrong = []
    opened = {1: 0}
    for number, row in enumerate(history.timelines, 2):
        if row.timeline != number:
            wrong.append(f"timeline {row.timeline} comes as number {number}")
        if row.parent not in opened:
            wrong.append(f"timeline {row.timeline} forks from {row.parent}, which is not there")
        elif row.fork_step < 0 or row.fork_step > max(_last_step(history, row.parent), row.left_step):
            wrong.append(f"timeline {row.timeline} forks at step {row.fork_step} outside of {row.parent}")
        opened[row.timeline] = row.fork_step
    events: tuple[TransitionRow | OutcomeRow, ...] = (*history.transitions, *history.outcomes)
    for event in events:
        if event.timeline not in opened:
            wrong.append(f"{event} lies in no timeline")
        elif event.global_step < opened[event.timeline]:
            wrong.append(f"{event} lies before its timeline forked")
    late = {row.command_id for row in history.commands if row.kind == "checkpoint"}  # answered when it is durable
    ordered = [row.timeline for row in history.outcomes if row.sequence and row.command_id not in late]
    wrong += [f"an outcome of timeline {b} after one of {a}" for a, b in pairwise(ordered) if b < a]
    wrong += [f"a transition of timeline {b} after one of {a}" for a, b in
              pairwise([row.timeline for row in history.transitions]) if b < a]  # fmt: skip
    return tuple(wrong)


def audit_chain(history: History) -> Violations:
    """AuditChain: the audit rows hash each other without a gap."""
    rows = [
        AuditRow(line.number, 0, AuditEntry(*line.fields), line.previous_hash, line.row_hash) for line in history.audit
    ]
    verdict = verify(rows)
    return () if verdict.intact else (f"the audit chain breaks at {verdict.first_bad_number}",)


def runs_end_once(history: History) -> Violations:
    """RunEndsOnce: the run began once, and finished once at most, however often it was resumed."""
    began, ended = history.runs.get("run_started", 0), history.runs.get("run_finished", 0)
    wrong = [] if began == 1 else [f"the run began {began} times"]
    return tuple(wrong if ended <= 1 else [*wrong, f"the run finished {ended} times"])


def replay_agrees(history: History) -> Violations:
    """ReplayAgrees: no start of the daemon found that what it did again went another way."""
    return tuple(f"{row.kind}: {row.message}" for row in history.notices if row.kind == "replay.diverged")


VALIDATORS: Mapping[str, Validator] = MappingProxyType(
    {
        "NoLostCommand": no_lost_command,
        "ExactlyOneOutcome": exactly_one_outcome,
        "NoDoubleApply": no_double_apply,
        "RevisionsIncrease": revisions_increase,
        "KeepsItsStep": keeps_its_step,
        "StoryIsWhole": story_is_whole,
        "TimelinesFork": timelines_fork,
        "AuditChain": audit_chain,
        "RunEndsOnce": runs_end_once,
        "ReplayAgrees": replay_agrees,
    }
)
"""Every validator of a history, by the name under which reports know it. WeightsEqual looks at files: see below."""


def all_violations(history: History) -> Violations:
    """What is wrong, each line with its validator's name."""
    return tuple(f"{name}: {line}" for name, validator in VALIDATORS.items() for line in validator(history))


def weights_equal(one: Path, other: Path) -> Violations:
    """WeightsEqual: two checkpoints hold the same tensors (host, optimizers, seeds, random streams), bit for bit."""
    names = {path.name for path in (*one.glob("*.safetensors"), *other.glob("*.safetensors"))}
    if not names:
        return (f"no tensors in {one} and {other}",)
    wrong: list[str] = []
    for name in sorted(names):
        if not (one / name).exists() or not (other / name).exists():
            wrong.append(f"{name} is in one of them only")
            continue
        wrong += [f"{name}: {line}" for line in _differing_tensors(one / name, other / name)]
    return tuple(wrong)


def _differing_tensors(one: Path, other: Path) -> Iterable[str]:
    with safe_open(one, "pt") as left, safe_open(other, "pt") as right:
        keys = set(left.keys()) | set(right.keys())
        for key in sorted(keys):
            if key not in left.keys() or key not in right.keys():  # noqa: SIM118 - it is no mapping
                yield f"{key} is in one of them only"
            elif not _same_bits(left.get_tensor(key), right.get_tensor(key)):
                yield f"{key} differs"


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """NaN equals the same NaN, and 0 is not -0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _is_of_its_time(row: OutcomeRow) -> bool:
    """Whether the trainer answered it when it was due: cancelled and expired ones are answered before."""
    return row.sequence > 0 and row.state in (_APPLIED, int(CommandState.REJECTED), int(CommandState.FAILED))


def _is_at(step: int, due: int, *, is_late: bool) -> bool:
    return step >= due if is_late else step == due


def _last_step(history: History, timeline: int) -> int:
    """The last step that is known of a timeline."""
    rows: tuple[OutcomeRow | TransitionRow | CheckpointRow, ...] = (
        *history.outcomes,
        *history.transitions,
        *history.checkpoints,
    )
    steps = [row.global_step for row in rows if row.timeline == timeline]
    return max([*steps, *(row.left_step for row in history.timelines if row.parent == timeline)], default=0)


def _broken_path(history: History, timeline: int, seed_id: int, own: list[TransitionRow]) -> Iterable[str]:
    possible = _stages_at_fork(history, timeline, seed_id)
    step = 0
    for row in own:
        if row.source not in possible or row.global_step < step:
            yield f"{row} follows {sorted(possible)} at step {step}"
        possible, step = {row.target}, row.global_step


def _stages_at_fork(history: History, timeline: int, seed_id: int) -> set[str]:
    """In which stages a seed may have been when a timeline began: the state at a step holds some of what it did."""
    opened = next((row for row in history.timelines if row.timeline == timeline), None)
    if opened is None:
        return {Stage.DORMANT.name}
    before = [row for row in history.transitions if row.timeline == opened.parent and row.seed_id == seed_id]
    reached = _stages_at_fork(history, opened.parent, seed_id)
    certain = [row.target for row in before if row.global_step < opened.fork_step]
    at_fork = {row.target for row in before if row.global_step == opened.fork_step}
    return ({certain[-1]} if certain else reached) | at_fork
