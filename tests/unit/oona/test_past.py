"""What the journal tells the trainer of a run that is picked up again."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from esperd.leyline.commands import Command, Outcome, PauseCommand, Refusal
from esperd.leyline.views import CheckpointEvent, NoticeEvent, RunResumed, TimelineEvent, TimelineView
from esperd.leyline.vocabulary import CheckpointKind, CommandState
from esperd.oona.past import RunPast, event_key, no_past, read_past
from esperd.oona.records import CommandRecord, Record, RunStarted
from esperd.oona.sqlite_journal import SqliteJournal
from tests.unit.oona.samples import NOW_S, command, transition

APPLIED, REJECTED, FAILED = CommandState.APPLIED, CommandState.REJECTED, CommandState.FAILED


def to_command(record: CommandRecord) -> Command:
    """As `recorded_commands` does; the payload's length stands for the expected revision."""
    return Command(record.command_id, PauseCommand(), record.principal, expected_revision=len(record.payload))


def started(run_id: str, revision: int = 1) -> RunStarted:
    return RunStarted(run_id, "digits", NOW_S, "{}", revision, is_resumable=True)


def resumed(revision: int, offset: int) -> RunResumed:
    return RunResumed("run-1", "c", 1, 10, revision, offset, NOW_S)


def outcome(name: str, sequence: int, step: int, state: CommandState = APPLIED, timeline: int = 1) -> Outcome:
    refusal = Refusal("SEED_STAGE", "no", {"stage": "DORMANT"}) if state is REJECTED else None
    return Outcome(f"command-{name}", state, step, 7, refusal, 0, timeline, sequence)


def notice(step: int, message: str = "m", timeline: int = 1) -> NoticeEvent:
    return NoticeEvent("k", message, "info", step, 5, NOW_S, {}, timeline)


def fork(timeline: int, fork_step: int) -> TimelineEvent:
    return TimelineEvent(timeline, timeline - 1, fork_step, fork_step + 9, "", "loss_anomaly", (2,), (), 40, NOW_S)


class Script:
    """A journal that is written row by row, and read as the trainer does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []

    async def open(self) -> None:
        self.journal = await SqliteJournal.open(self.path)

    async def append(self, *records: Record) -> int:
        return await self.journal.append(*records)

    async def accept(self, *names: str, expected_revision: int = 0, step: int = 0) -> None:
        payload = bytes(expected_revision)
        await self.journal.accept([replace(command(name, payload), accepted_step=step) for name in names])

    async def settle(self, *outcomes: Outcome) -> None:
        await self.journal.settle(outcomes, NOW_S)

    def past(
        self, after_sequence: int = 0, after_revision: int = 0, state_revision: int = 0, first_revision: int = 1
    ) -> RunPast:
        read = partial(read_past, self.path, "run-1", first_revision=first_revision, to_command=to_command)
        return read(after_sequence=after_sequence, after_revision=after_revision, state_revision=state_revision)


@pytest.fixture
async def script(tmp_path: Path) -> Script:
    made = Script(tmp_path / "journal")
    await made.open()
    return made


def ids(commands: Sequence[object]) -> list[str]:
    return [found.command.command_id.removeprefix("command-") for found in commands]  # type: ignore[attr-defined]


async def test_what_had_an_effect_comes_in_the_order_of_its_outcomes(script: Script) -> None:
    """Applied and failed ones after the checkpoint, by number; refused ones changed nothing; open ones as they came."""
    await script.append(started("run-1"))
    await script.accept("a", "b", "c", "d", "e", "f", step=3)
    await script.settle(
        outcome("c", 3, 12),
        outcome("b", 2, 12),
        outcome("a", 1, 5),
        outcome("d", 4, 13, REJECTED),
        outcome("e", 5, 14, FAILED),
    )
    past = script.past(after_sequence=1)
    assert ids(past.settled) == ["b", "c", "e"]
    assert past.settled[0].outcome == outcome("b", 2, 12)
    assert ids(past.unsettled) == ["f"]
    assert (past.unsettled[0].outcome, past.unsettled[0].accepted_step) == (None, 3)
    assert (past.last_sequence, past.horizon) == (5, (1, 14))
    assert ids(script.past().settled) == ["a", "b", "c", "e"]
    await script.journal.close()


@pytest.mark.parametrize(
    ("reason", "is_repeated"), [("GATE_FAILED", True), ("GATE_UNMEASURED", True), ("SEED_DWELL", False)]
)
async def test_a_refusal_that_measured_is_repeated(script: Script, reason: str, is_repeated: bool) -> None:
    """A gate draws from the held-out data, whatever it then says: the run must draw again."""
    await script.append(started("run-1"))
    await script.accept("a")
    refused = replace(outcome("a", 1, 5, REJECTED), refusal=Refusal(reason, "no"))
    await script.settle(refused)
    assert ids(script.past().settled) == (["a"] if is_repeated else [])
    await script.journal.close()


async def test_only_the_rows_of_the_run_count(script: Script) -> None:
    """A journal holds one run after another; the later one's rows are not this one's, nor the earlier one's."""
    await script.append(started("run-0"))
    await script.accept("before")
    await script.settle(outcome("before", 9, 900))
    await script.append(notice(900), started("run-1"))
    await script.accept("own")
    await script.append(notice(10), started("run-2"), notice(700))
    await script.accept("after")
    past = script.past()
    assert (past.settled, ids(past.unsettled)) == ((), ["own"])
    assert (past.last_sequence, past.horizon) == (0, (1, 10))
    assert past.event_keys == {event_key(notice(10))}
    with pytest.raises(LookupError):
        read_past(
            script.path,
            "run-9",
            after_sequence=0,
            after_revision=0,
            state_revision=0,
            first_revision=1,
            to_command=to_command,
        )
    await script.journal.close()


async def test_timelines_and_the_horizon_follow_a_rollback(script: Script) -> None:
    """A later timeline is ahead of every step of its parent; events before the checkpoint are left out."""
    await script.append(started("run-1"), notice(20))
    at_checkpoint = script.journal.revision
    await script.append(transition(3, 30), fork(2, 15), notice(16, timeline=2))
    kept = CheckpointEvent("t002-s000000016", CheckpointKind.FORK, 16, 2, 10, 0.5, 1.0, NOW_S)
    await script.append(kept)
    past = script.past(after_revision=at_checkpoint)
    assert past.horizon == (2, 16)
    assert past.timelines == (TimelineView(1, 0, 0), TimelineView(2, 1, 15, "loss_anomaly"))
    assert past.event_keys == set(map(event_key, (transition(3, 30), fork(2, 15), notice(16, timeline=2), kept)))
    assert past.counts(kept.checkpoint_id)
    later = script.past(after_revision=script.journal.revision)
    assert (later.horizon, later.counts(kept.checkpoint_id)) == ((0, 0), False)
    assert await script.journal.last_state_revision() == 40
    await script.journal.close()


async def test_an_expected_revision_is_carried_into_this_starts_numbers(script: Script) -> None:
    """Start 1 showed the checkpoint at 50, start 2 at 1000, this one shows it at 2000; both commands saw ten more."""
    await script.append(started("run-1"))
    at_checkpoint = script.journal.revision
    await script.accept("a", expected_revision=60)
    await script.append(resumed(1000, 950))
    await script.accept("b", expected_revision=1010)
    await script.accept("any")
    past = script.past(after_revision=at_checkpoint, state_revision=50, first_revision=2000)
    assert past.revision_offset == 1000
    assert [found.command.expected_revision for found in past.unsettled] == [2010, 2010, 0]
    await script.journal.close()


async def test_a_checkpoint_of_the_newest_start_counts_from_there(script: Script) -> None:
    """Offsets before the checkpoint are in its revision already."""
    await script.append(started("run-1"), resumed(1000, 950))
    await script.accept("b", expected_revision=1010)
    past = script.past(after_revision=script.journal.revision, state_revision=1005, first_revision=2000)
    assert past.revision_offset == 995
    assert past.unsettled[0].command.expected_revision == 2005
    await script.journal.close()


async def test_without_a_checkpoint_the_run_began_at_its_first_revision(script: Script) -> None:
    """A second run of a journal does not begin at 1."""
    await script.append(started("run-1", 3_000_000))
    await script.accept("a", expected_revision=3_000_004)
    past = script.past(first_revision=4_000_000)
    assert past.revision_offset == 1_000_000
    assert past.unsettled[0].command.expected_revision == 4_000_004
    await script.journal.close()


def test_an_event_done_again_has_the_same_key() -> None:
    """Time and revision differ from start to start; seed, stages, place and words do not."""
    again = replace(transition(), unix_s=1.0, revision=99)
    assert event_key(again) == event_key(transition())
    others = [transition(4), transition(3, 101), replace(transition(), timeline=2)]
    assert len({event_key(event) for event in (transition(), *others)}) == 4
    assert event_key(notice(1, "a")) != event_key(notice(1, "b"))


def test_a_journal_in_memory_has_no_past() -> None:
    """The run goes on from its checkpoint, with nothing to do again."""
    past = no_past(after_sequence=3, after_revision=0, state_revision=50, first_revision=1_000_000)
    assert (past.settled, past.unsettled, past.horizon, past.last_sequence) == ((), (), (0, 0), 3)
    assert past.revision_offset == 999_950
    assert past.counts("any checkpoint")
