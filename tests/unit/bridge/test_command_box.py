"""The way down: bounded, refusing at once, and never losing a command."""

import threading

import pytest

from esperd.bridge.command_box import CommandBox
from esperd.leyline.commands import Command, PauseCommand
from esperd.leyline.errors import EsperdError


def command(command_id: str) -> Command:
    return Command(command_id, PauseCommand(), "tester")


def put(box: CommandBox, command_id: str) -> None:
    box.reserve()
    box.put(command(command_id))


def test_a_full_box_refuses_at_once():
    """Reserved places count as taken, so that an accepted command always fits."""
    box = CommandBox(3)
    put(box, "a")
    box.reserve(2)
    with pytest.raises(EsperdError) as refused:
        box.reserve()
    assert refused.value.reason == "COMMAND_BOX_FULL"
    box.give_back()
    box.reserve()


def test_deferred_commands_count_against_the_capacity():
    """A client cannot fill the trainer's memory with commands for a far future."""
    box = CommandBox(2)
    box.num_deferred = 2
    with pytest.raises(EsperdError, match="2 commands waiting"):
        box.reserve()


def test_the_emergency_lane_overtakes_and_needs_no_place():
    """An emergency reaches the trainer first, however full the box is."""
    box = CommandBox(2)
    put(box, "a")
    put(box, "b")
    box.put_urgent(command("emergency"))
    assert [c.command_id for c in box.take()] == ["emergency", "a", "b"]
    assert not box.has_mail


def test_a_wait_ends_when_a_command_comes_or_the_box_is_woken():
    """A paused trainer sleeps until there is something to do, and no longer."""
    box = CommandBox(1)
    assert not box.wait(0.0)
    box.wake()
    assert box.wait(0.0)
    box.take()
    assert not box.wait(0.0)
    put(box, "a")
    assert box.wait(0.0)


def test_a_closed_box_refuses_and_hands_back_what_waited():
    """At the end every waiting command still gets its outcome, and no new one comes in."""
    box = CommandBox(4)
    put(box, "a")
    box.reserve()
    assert [c.command_id for c in box.close(EsperdError("TRAINER_NOT_RUNNING", phase="FINISHED"))] == ["a"]
    for attempt in (box.reserve, lambda: box.put(command("b")), lambda: box.put_urgent(command("c"))):
        with pytest.raises(EsperdError) as refused:
            attempt()
        assert refused.value.reason == "TRAINER_NOT_RUNNING"


def test_under_load_every_command_is_taken_once_or_refused():
    """While the box fills, empties and closes from two threads, no command is lost and none is doubled."""
    for _ in range(20):
        box = CommandBox(16)
        accepted: list[str] = []
        taken: list[str] = []
        has_begun = threading.Event()

        def fill(box: CommandBox = box, accepted: list[str] = accepted, has_begun: threading.Event = has_begun) -> None:
            for number in range(1_000_000):
                if number == 100:
                    has_begun.set()
                try:
                    box.reserve()
                    box.put(command(str(number)))
                except EsperdError as error:
                    if error.reason == "TRAINER_NOT_RUNNING":
                        return
                    has_begun.set()
                else:
                    accepted.append(str(number))

        filler = threading.Thread(target=fill)
        filler.start()
        has_begun.wait()
        for _ in range(50):
            taken += [c.command_id for c in box.take()]
        taken += [c.command_id for c in box.close(EsperdError("TRAINER_NOT_RUNNING", phase="FINISHED"))]
        filler.join()
        assert taken == accepted
