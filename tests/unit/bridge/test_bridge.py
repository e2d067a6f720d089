"""The four lines between the training thread and the event loop, tried from both sides with a real loop and thread."""

import asyncio
import math
import threading
from dataclasses import replace

import pytest

from esperd.bridge.bridge import Bridge, Event
from esperd.leyline.commands import Command, Outcome, PauseCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import NoticeEvent, RunView, Snapshot
from esperd.leyline.vocabulary import CommandState, TrainerPhase

FIRST = Snapshot(1, RunView("run", "task", TrainerPhase.STARTING, 0, 0, 0, math.nan, math.nan))


def make_bridge(**capacities: int) -> Bridge:
    return Bridge(first_snapshot=FIRST, **capacities)


def note(number: int) -> NoticeEvent:
    return NoticeEvent("test", str(number), "info", number, 0, 0.0)


def pause(command_id: str) -> Command:
    return Command(command_id, PauseCommand(), "tester")


async def collect(bridge: Bridge, num_events: int, max_per_pass: int = 1 << 30) -> list[Event]:
    """Take events on the running loop, as they are announced, until there are so many."""
    taken: list[Event] = []
    done = asyncio.Event()

    def on_events() -> None:
        taken.extend(bridge.take_events(max_per_pass))
        if len(taken) >= num_events:
            done.set()

    bridge.attach(asyncio.get_running_loop(), on_events)
    await asyncio.wait_for(done.wait(), 30)
    bridge.detach()
    return taken


async def test_events_are_never_dropped_and_keep_their_order():
    """Event log: whatever the training thread records at full speed arrives once and in order."""
    bridge = make_bridge()
    num_events = 20_000
    writer = threading.Thread(target=lambda: [bridge.record(note(number)) for number in range(num_events)])
    writer.start()
    taken = await collect(bridge, num_events)
    writer.join()
    assert [int(event.message) for event in taken if isinstance(event, NoticeEvent)] == list(range(num_events))


async def test_one_wake_up_is_in_flight_at_a_time():
    """A burst of events costs one call into the loop, not one for each."""
    bridge = make_bridge()
    bridge.attach(asyncio.get_running_loop(), lambda: None)
    await asyncio.sleep(0)  # the greeting of attach
    before = bridge._wakeup.num_rings
    for number in range(1000):
        bridge.record(note(number))
    assert bridge._wakeup.num_rings == before + 1


async def test_a_short_pass_rings_again_for_the_rest():
    """The loop takes events in bounded passes and still gets all of them without another record."""
    bridge = make_bridge()
    for number in range(100):
        bridge.record(note(number))
    assert len(await collect(bridge, 100, max_per_pass=7)) == 100


async def test_events_recorded_before_the_loop_came_are_seen():
    """Attaching looks at once, so that nothing recorded earlier waits for the next event."""
    bridge = make_bridge()
    bridge.record(note(0))
    assert len(await collect(bridge, 1)) == 1


def test_a_closed_loop_is_no_error_for_the_trainer():
    """Recording after the loop has gone is silent, and the events can still be taken."""
    bridge = make_bridge()

    async def come_and_go() -> None:
        bridge.attach(asyncio.get_running_loop(), lambda: None)
        await asyncio.sleep(0)

    asyncio.run(come_and_go())
    bridge.record(note(0))
    bridge.record(note(1))
    assert len(bridge.take_events(10)) == 2


def test_revisions_only_grow_and_each_is_recorded_once():
    """State view: progress under the same revision is swapped in silently, a new revision is also an event."""
    bridge = make_bridge()
    moved = replace(FIRST, run=replace(FIRST.run, global_step=5))
    bridge.publish(moved)
    assert bridge.snapshot() is moved
    assert bridge.take_events(10) == []
    second = replace(moved, revision=2)
    bridge.publish(second)
    assert bridge.take_events(10) == [second]
    with pytest.raises(ValueError, match="went back"):
        bridge.publish(moved)


def test_readers_never_see_a_revision_go_back():
    """State view under load: a reader in another thread sees revisions and steps that only grow."""
    bridge = make_bridge()

    def publish() -> None:
        for number in range(2, 20_000):
            bridge.publish(replace(FIRST, revision=number))

    writer = threading.Thread(target=publish)
    writer.start()
    seen = [bridge.snapshot().revision for _ in iter(writer.is_alive, False)]
    writer.join()
    assert seen == sorted(seen)


def test_a_cancellation_is_seen_with_its_command():
    """Cancellations taken before the box never miss a command that was submitted earlier."""
    bridge = make_bridge()
    num_commands = 2000

    def submit_and_cancel() -> None:
        for number in range(num_commands):
            bridge.reserve()
            bridge.submit(pause(str(number)))
            bridge.cancel(str(number))

    client = threading.Thread(target=submit_and_cancel)
    bridge.box.capacity = num_commands
    client.start()
    taken: set[str] = set()
    while client.is_alive() or bridge.has_mail:
        cancelled = bridge.take_cancellations()
        taken |= {command.command_id for command in bridge.box.take()}
        assert cancelled <= taken
    client.join()
    assert len(taken) == num_commands
    assert not bridge.has_mail


def test_every_command_has_one_outcome_when_the_trainer_leaves():
    """Shutdown under load: each accepted command, waiting, deferred or in flight, is answered exactly once."""
    for _ in range(20):
        bridge = make_bridge(box_capacity=64)
        accepted: list[str] = []
        has_begun = threading.Event()

        def submit(bridge: Bridge = bridge, accepted: list[str] = accepted, begun: threading.Event = has_begun) -> None:
            for number in range(1_000_000):
                try:
                    bridge.reserve()
                    bridge.submit(pause(str(number)))
                except EsperdError as error:
                    if error.reason == "TRAINER_NOT_RUNNING":
                        return
                else:
                    accepted.append(str(number))
                if number > 30:
                    begun.set()

        client = threading.Thread(target=submit)
        client.start()
        has_begun.wait()
        deferred: list[Command] = []
        for _ in range(30):
            for command in bridge.box.take():
                if int(command.command_id) % 5 == 0:
                    deferred.append(command)
                else:
                    bridge.settle(Outcome(command.command_id, CommandState.APPLIED, 0, 1))
        bridge.close("FINISHED", deferred)
        client.join()
        outcomes = [event for event in bridge.take_events(1 << 30) if isinstance(event, Outcome)]
        assert sorted(outcome.command_id for outcome in outcomes) == sorted(accepted)
        refused = {outcome.refusal.reason for outcome in outcomes if outcome.refusal is not None}
        assert refused <= {"TRAINER_NOT_RUNNING"}


def test_what_waits_is_kept_for_the_next_start():
    """When the daemon leaves a run that goes on: no outcome for what waits, and DRAINING for what comes."""
    bridge = make_bridge()
    bridge.reserve(2)
    bridge.submit(pause("waiting"))
    bridge.submit_urgent(pause("urgent"))
    bridge.close("STOPPING", [pause("deferred")], keep_unsettled=True)
    assert bridge.take_events(10) == []
    for refused in (lambda: bridge.submit(pause("late")), lambda: bridge.submit_urgent(pause("late")), bridge.reserve):
        with pytest.raises(EsperdError) as caught:
            refused()
        assert caught.value.reason == "DRAINING"


def test_a_stop_request_is_mail():
    """The supervisor's wish wakes a paused trainer and is seen at the next safe point."""
    bridge = make_bridge()
    assert not bridge.has_mail
    bridge.request_stop()
    assert bridge.has_mail
    assert bridge.stop_requested
    assert bridge.box.wait(0.0)


def test_training_time_adds_up():
    """Admission control reads the time spent in steps and their number; life without steps adds neither."""
    bridge = make_bridge()
    bridge.beat(0.25)
    bridge.beat(0.5)
    bridge.show_life()
    assert bridge.training_seconds == (0.75, 2)


async def test_both_threads_may_ring_without_losing_a_wake_up():
    """Recording from the training thread while the loop takes in small passes loses no event and hangs no pass."""
    bridge = make_bridge()
    num_events = 5000
    writer = threading.Thread(target=lambda: [bridge.record(note(number)) for number in range(num_events)])
    writer.start()
    taken = await collect(bridge, num_events, max_per_pass=3)
    writer.join()
    assert len(taken) == num_events


async def test_all_four_lines_hold_together_under_load_and_at_the_end():
    """A training thread at full speed and a loop that commands, watches and takes telemetry, until the trainer leaves.

    Every accepted command has one outcome, events are in order and complete, samples are taken or counted, and the last
    snapshot is the newest.
    """
    bridge = make_bridge(box_capacity=32, ring_capacity=256)
    num_steps = 20_000
    ending = threading.Event()

    def train() -> None:
        revision = 1
        for step in range(num_steps):
            bridge.emit(("loss", 0, step, 0.0, 0))
            bridge.beat(0.001)
            if bridge.has_mail:
                for command in bridge.box.take():
                    revision += 1
                    bridge.publish(replace(FIRST, revision=revision))
                    bridge.settle(Outcome(command.command_id, CommandState.APPLIED, step, revision))
        bridge.close("FINISHED")
        ending.set()

    events: list[Event] = []
    accepted: list[str] = []
    num_samples = 0
    bridge.attach(asyncio.get_running_loop(), lambda: events.extend(bridge.take_events(50)))
    trainer = threading.Thread(target=train)
    trainer.start()
    number = 0
    while not ending.is_set():
        for _ in range(8):
            number += 1
            try:
                bridge.reserve()
                bridge.submit(pause(str(number)))
            except EsperdError:
                continue
            accepted.append(str(number))
        samples, num_dropped = bridge.take_samples()
        num_samples += len(samples) + num_dropped
        await asyncio.sleep(0)
    trainer.join()
    bridge.detach()
    samples, num_dropped = bridge.take_samples()
    events += bridge.take_events(1 << 30)
    assert num_samples + len(samples) + num_dropped == num_steps
    assert [event.command_id for event in events if isinstance(event, Outcome)] == accepted
    revisions = [event.revision for event in events if isinstance(event, Snapshot)]
    assert revisions == list(range(2, len(revisions) + 2))
    assert bridge.snapshot().revision == max(revisions, default=1)
    assert bridge.training_seconds[1] == num_steps
