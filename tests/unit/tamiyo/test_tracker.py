"""What the policy remembers between packets."""

from dataclasses import replace

from esper.tamiyo.observation import Attempt
from esper.tamiyo.tracker import Tracker

from tests.unit.tamiyo.moments import moment, seed


def test_history_grows_with_packets_and_starts_anew_with_a_run() -> None:
    """Each packet adds a point; another run has another past."""
    tracker = Tracker("tamiyo")
    tracker.observe(moment(25))
    second = tracker.observe(moment(50))
    assert [point.step for point in second.history] == [25, 50]
    other = tracker.observe(replace(moment(75), run_id="run-2"))
    assert [point.step for point in other.history] == [75]
    assert second.principal == "tamiyo"


def test_a_rollback_rewrites_the_history() -> None:
    """A packet of an earlier step takes the place of what came after it."""
    tracker = Tracker("tamiyo")
    for step in (25, 50, 75):
        tracker.observe(moment(step))
    assert [point.step for point in tracker.observe(moment(50)).history] == [25, 50]


def test_endings() -> None:
    """A live seed that vanished was culled, one that is now a fossil was kept."""
    tracker = Tracker("tamiyo")
    tracker.observe(moment(25, seeds=(seed("1"), seed("2", "PROBATIONARY"), seed("3", "BLENDING"))))
    seen = tracker.observe(moment(50, seeds=(seed("2", "FOSSILIZED"), seed("3", "CULLED"))))
    assert [(e.seed_id, e.stage, e.last_stage) for e in seen.endings] == [
        ("1", "CULLED", "TRAINING"),
        ("2", "FOSSILIZED", "PROBATIONARY"),
        ("3", "CULLED", "BLENDING"),
    ]


def test_outcomes_show_only_with_the_packet_that_holds_their_effect() -> None:
    """A command stays pending until a packet of its outcome's revision has come."""
    tracker = Tracker("tamiyo")
    tracker.observe(moment(25))
    tracker.sent([Attempt("r", "GERMINATE", 25, "conv1")])
    tracker.settled("r", "APPLIED", "", "7", revision=60)
    assert [a.state for a in tracker.observe(moment(50)).attempts] == ["PENDING"]
    after = tracker.observe(moment(75)).attempts
    assert [(a.state, a.seed_id) for a in after] == [("APPLIED", "7")]


def test_a_cut_connection_ends_the_waiting() -> None:
    """After a cut outcomes may be lost, so nothing stays pending for ever."""
    tracker = Tracker("tamiyo")
    tracker.observe(moment(25))
    tracker.sent([Attempt("r", "GERMINATE", 25, "conv1"), Attempt("s", "CULL", 25, seed_id="1")])
    tracker.settled("s", "REJECTED", "SEED_UNKNOWN", "", revision=99)
    tracker.disconnected()
    assert [a.state for a in tracker.observe(moment(50)).attempts] == ["UNKNOWN", "REJECTED"]


def test_a_new_timeline_leaves_the_past_behind() -> None:
    """A seed that went with a rollback was not culled, and the next seed of its number is another one."""
    tracker = Tracker("tamiyo")
    tracker.observe(moment(25, seeds=(seed("1"), seed("2"))))
    tracker.observe(moment(50, seeds=(seed("2"),)))
    tracker.sent([Attempt("r", "START_GRAFTING", 50, seed_id="2"), Attempt("s", "CULL", 50, seed_id="2")])
    tracker.settled("r", "REJECTED", "GATE_FAILED", "", revision=0)
    tracker.observe(moment(75, seeds=(seed("2"),)))
    back = tracker.observe(moment(60, seeds=(), timeline=2))
    assert (back.endings, [point.step for point in back.history]) == ((), [60])
    assert [(attempt.request_id, attempt.state) for attempt in back.attempts] == [("s", "PENDING")]
    assert [point.step for point in tracker.observe(moment(85, timeline=2)).history] == [60, 85]
