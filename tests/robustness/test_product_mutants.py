"""The validators of a round find a fault of the product, not only of a written history: the product is made faulty.

A control plane in this process, an ordinary client, the readers of the rounds; then one line of the product is another.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1.vocabulary_pb2 import EMERGENCY_LEVEL_NOTICE

from esperd.bridge.bridge import Bridge
from esperd.bridge.command_box import CommandBox
from esperd.control.command_board import CommandBoard
from esperd.leyline.commands import Outcome
from esperd.leyline.nonces import NonceStore
from esperd.oona import ledger
from esperd.oona.audit_chain import row_hash
from esperd.oona.feed import Feed
from esperd.oona.feed_values import Compacted, Revision
from esperd.oona.subscription import EveryBacklog, Subscription
from tests.integration.control.conftest import directory, stage
from tests.integration.control.stage import Theatre
from tests.robustness.history import read_history
from tests.robustness.rounds.events import Notes, read_events
from tests.robustness.rounds.judgement import JUDGES, Round
from tests.robustness.rounds.recording import RecordingClient
from tests.robustness.rounds.watching import Reader

__all__ = ["directory", "stage"]

Fault = Callable[[pytest.MonkeyPatch], None]

_READ_S = 0.4
_MAX_PLAYS = 4
"""On a machine that is busy a reader may see too little of a play for a fault to show in it."""


def _newest_first(patch: pytest.MonkeyPatch) -> None:
    def take(self: EveryBacklog[Any], epoch: bytes) -> Any:
        if len(self._waiting) > 1:
            self._waiting.rotate(1)
        return sound(self, epoch)

    sound = EveryBacklog.take
    patch.setattr(EveryBacklog, "take", take)


def _once_more_after_resuming(patch: pytest.MonkeyPatch) -> None:
    def take_over(self: Subscription[Any], changes: Any, revision: int) -> None:
        sound(self, [*_last_known(self), *changes], revision)

    def remember(self: Feed[Any], change: Revision[Any]) -> None:
        known[self._epoch, change.number] = change
        sound_remember(self, change)

    def _last_known(subscription: Subscription[Any]) -> list[Revision[Any]]:
        found = known.get((subscription.token.epoch, subscription.token.revision))
        return [] if found is None else [found]

    known: dict[tuple[bytes, int], Revision[Any]] = {}
    sound, sound_remember = Subscription.replay, Feed._remember
    patch.setattr(Subscription, "replay", take_over)
    patch.setattr(Feed, "_remember", remember)


def _one_lost_while_away(patch: pytest.MonkeyPatch) -> None:
    def replay(self: Subscription[Any], changes: Any, revision: int) -> None:
        sound(self, list(changes)[1:], revision)

    sound = Subscription.replay
    patch.setattr(Subscription, "replay", replay)


def _a_batch_in_pieces(patch: pytest.MonkeyPatch) -> None:
    def publish(self: CommandBoard, records: Any) -> None:
        for record in records:
            sound(self, [record])

    sound = CommandBoard._publish
    patch.setattr(CommandBoard, "_publish", publish)


def _every_token_is_too_old(patch: pytest.MonkeyPatch) -> None:
    def checked(self: Feed[Any], _: Any) -> Any:
        raise Compacted(self.floor)

    patch.setattr(Feed, "_checked", checked)


def _bookmarks_run_ahead(patch: pytest.MonkeyPatch) -> None:
    def offer_bookmark(self: Subscription[Any], revision: int) -> None:
        sound(self, revision + 3)

    sound = Subscription.offer_bookmark
    patch.setattr(Subscription, "offer_bookmark", offer_bookmark)


def _nonces_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(NonceStore, "claim", lambda *_: None)


def _emergencies_wait_in_line(patch: pytest.MonkeyPatch) -> None:
    def take(self: CommandBox) -> Any:
        return sorted(sound(self), key=lambda command: command.payload.__class__.__name__ == "EmergencyCommand")

    sound = CommandBox.take
    patch.setattr(CommandBox, "take", take)


def _rows_are_not_chained(patch: pytest.MonkeyPatch) -> None:
    def chained_to_nothing(_: bytes, number: int, entry: Any) -> bytes:
        return row_hash(bytes(32), number, entry)

    patch.setattr(ledger, "row_hash", chained_to_nothing)


FAULTS: dict[str, Fault] = {
    "Ordered": _newest_first,
    "Unique": _once_more_after_resuming,
    "Reliable": _one_lost_while_away,
    "Atomic": _a_batch_in_pieces,
    "Resumable": _every_token_is_too_old,
    "Bookmarkable": _bookmarks_run_ahead,
    "NoReplay": _nonces_are_forgotten,
    "EmergencyPreempts": _emergencies_wait_in_line,
    "AuditChain": _rows_are_not_chained,
}


@pytest.fixture(params=["", *FAULTS], ids=["none", *FAULTS])
async def faulty(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, stage: Theatre
) -> AsyncIterator[tuple[str, Theatre]]:
    """A control plane with one fault, and the name of the validator that must find it."""
    _number_outcomes(monkeypatch)
    if request.param:
        FAULTS[request.param](monkeypatch)
    yield request.param, stage
    monkeypatch.undo()


def _number_outcomes(patch: pytest.MonkeyPatch) -> None:
    """The scripted trainer gives every outcome the same step and no number; the trainer does better."""

    def settle(self: Bridge, outcome: Outcome) -> None:
        step = self.snapshot().run.global_step
        sound(self, replace(outcome, sequence=next(numbers), global_step=step))

    numbers = itertools.count(1)
    sound = Bridge.settle
    patch.setattr(Bridge, "settle", settle)


async def test_a_fault_of_the_product_is_found(faulty: tuple[str, Theatre], tmp_path: Path) -> None:
    """Each validator finds the fault that breaks its promise; without a fault none finds anything."""
    name, stage = faulty
    found: set[str] = set()
    with closing(Notes(tmp_path / "notes.jsonl")) as notes:
        for play in range(_MAX_PLAYS):
            await _play(stage, notes, play)
            judged = Round(read_history(stage.directory / "journal.db"), tuple(read_events(tmp_path / "notes.jsonl")))
            found = {one for one, judge in JUDGES.items() if judge(judged)}
            if not name or name in found:
                break
    assert name in found if name else not found


async def _play(stage: Theatre, notes: Notes, play: int) -> None:
    """Readers that leave and come back, commands and changes all the time, a replay, an emergency."""
    source = random.Random(3)
    credentials = stage.credentials("operator")
    async with RecordingClient(stage.address, credentials, notes, source) as client:
        readers = [Reader(client, f"{name}{play}", every=True) for name in ("a", "b", "c")]
        for _ in range(3):
            deadline_s = time.monotonic() + _READ_S
            states, commands = [readers[0], readers[1]], readers[2]
            await asyncio.gather(
                *(reader.read_state(deadline_s) for reader in states),
                commands.read_commands(deadline_s),
                _act(stage, client, deadline_s + 0.1),
            )
        await client.replay_one()
        await _overtake(stage, client, f"urgent{play}")


async def _act(stage: Theatre, client: RecordingClient, deadline_s: float) -> None:
    """Changes and batches until a while after the readers have left."""
    while time.monotonic() < deadline_s:
        for _ in range(4):
            stage.trainer.at_safe_point(lambda: _step(stage))
        messages = [_message(stage) for _ in range(3)]
        asked_s = time.monotonic()
        answer = await client.submit_batch(messages)
        ids = [one.command_id for one in answer.commands]
        client.note_accepted("batch", [message.request_id for message in messages], ids, asked_s)
        await asyncio.sleep(0.02)


async def _overtake(stage: Theatre, client: RecordingClient, request_id: str) -> None:
    """A command waits for a safe point when an emergency comes."""
    stage.trainer.at_safe_point(lambda: _step(stage))
    await asyncio.sleep(0.05)
    stage.trainer.is_stuck.set()
    await asyncio.sleep(0.05)
    waiting = await client.submit(_message(stage))
    raising = asyncio.create_task(client.raise_emergency(EMERGENCY_LEVEL_NOTICE, "r", request_id=request_id))
    await asyncio.sleep(0.1)
    stage.trainer.is_stuck.clear()
    await raising
    await client.outcome(waiting)


def _step(stage: Theatre) -> None:
    run = stage.trainer.snapshot.run
    stage.trainer.publish(run=replace(run, global_step=run.global_step + 1))


def _message(stage: Theatre) -> pb.AdaptationCommand:
    adjustment = pb.CommandOptimizerAdjustment(
        optimizer_id="host", action=pb.OPTIMIZER_ACTION_SET_HYPERPARAMETERS, hyperparameters={"lr": 0.01}
    )
    return pb.AdaptationCommand(request_id=stage.request_id(), reason="a test", optimizer_adjustment=adjustment)
