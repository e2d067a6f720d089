"""Checkpoints, rollbacks and timelines as an operator types and reads them."""

import json

import pytest
from click.testing import CliRunner, Result
from esper.ctl import output
from esper.ctl.history import is_on, steps_until
from esper.ctl.landing import Target
from esper.ctl.main import main
from esper.leyline.v1 import checkpoint_service_pb2 as checkpoint_pb
from esper.leyline.v1 import command_pb2, state_pb2
from esper.leyline.v1 import vocabulary_pb2 as v

from tests.unit.ctl import past
from tests.unit.ctl.small_daemon import SmallDaemon


def ctl(daemon: SmallDaemon, *arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["-a", daemon.address, *arguments], input=answer, catch_exceptions=False)


@pytest.fixture
def old(daemon: SmallDaemon) -> SmallDaemon:
    past.give_past(daemon)
    return daemon


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits there."""
    monkeypatch.setattr(output, "_is_terminal", lambda: True)


def test_targets() -> None:
    """A number is a step; a seed is named in words; the rest is a checkpoint."""
    assert Target.read("0") == Target(global_step=0)
    assert Target.read("  Before  seed 12 ") == Target(before_seed_id="12")
    assert Target.read("t001-s000000200") == Target(checkpoint_id="t001-s000000200")


def test_lineage_is_the_daemons_own() -> None:
    """Timeline 3 left 2 at step 300, which lies before the fork of 2: of timeline 1 steps up to 300 count."""
    tree = [
        state_pb2.Timeline(timeline=number, parent=parent, fork_step=step)
        for number, parent, step in ((1, 0, 0), (2, 1, 400), (3, 2, 300))
    ]
    assert steps_until(tree, 3) == {3: None, 2: 300, 1: 300}
    assert steps_until(tree, 2, 450) == {2: 450, 1: 400}
    assert is_on(steps_until(tree, 3), 1, 300)
    assert not is_on(steps_until(tree, 3), 1, 301)
    assert is_on(steps_until(tree, 1), 0, 5)  # a daemon of before timelines


def test_rollback_says_what_is_lost_and_asks(old: SmallDaemon, at_terminal: None) -> None:
    """Steps and time, seeds that go, come back, step back, fossils, and the commands; then it asks."""
    old.on_submit = lambda asked: past.go_back(old) if asked.HasField("rollback") else None
    result = ctl(old, "rollback", "--to", "250", "--reason", "it got worse", answer="y\n")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines == [
        "from   step 405 of timeline 1",
        "to     step 200 of timeline 1 (checkpoint t001-s000000200)",
        "lost   205 steps, about 0 s of training",
        "seeds that go:",
        "  seed 4 (residual_conv at conv4), GERMINATED since step 380",
        "fossils that go:",
        "  seed 3 (residual_conv at conv3), fossilized at step 320: will be TRAINING again",
        "seeds that come back:",
        "  seed 2 (residual_conv at conv2), CULLED at step 350: TRAINING again",
        "seeds that step back:",
        "  seed 1 (residual_conv at conv1), BLENDING now: TRAINING again",
        "changes of hyper-parameters that are undone:",
        "  step 370  host: lr=0.001, by policy: slower",
        "other commands that are undone:",
        "  step 300  START_GRAFTING seed 1, by policy: it is stable",
        "  step 380  GERMINATE residual_conv at conv1, by policy: more",
        "The run goes on as timeline 2.",
        "The run is at step 200 on timeline 2, from step 200 of timeline 1: TRAINING.",
    ]
    trial, sent = old.asked
    assert (trial.validate_only, sent.validate_only) == (True, False)
    assert (sent.rollback.global_step, sent.reason, sent.request_id != "") == (250, "it got worse", True)


def test_rollback_asks_first(old: SmallDaemon, at_terminal: None) -> None:
    """A no changes nothing."""
    assert ctl(old, "rollback", "--to", "before seed 1", answer="n\n").exit_code == 1
    assert [asked.validate_only for asked in old.asked] == [True]


def test_rollback_without_a_terminal(old: SmallDaemon) -> None:
    """Refused, as bad usage, unless --yes; a dry run needs neither."""
    refused = ctl(old, "rollback", "--to", "200")
    assert (refused.exit_code, "--yes" in refused.stderr) == (2, True)
    told = json.loads(ctl(old, "rollback", "--to", "200", "--dry-run", "-o", "json").stdout)
    assert told["landing"]["checkpointId"] == "t001-s000000200"
    assert told["lost"]["numSteps"] == 205
    assert [asked.validate_only for asked in old.asked] == [True, True]
    old.on_submit = lambda asked: past.go_back(old)
    done = json.loads(ctl(old, "rollback", "--to", "200", "--tier", "full", "--yes", "-o", "json").stdout)
    assert (done["command"]["state"], done["run"]["timeline"]) == ("COMMAND_STATE_APPLIED", 2)
    assert old.asked[-1].rollback.tier == v.ROLLBACK_TIER_FULL


@pytest.mark.parametrize(
    ("target", "landing"),
    [
        ("400", 390),
        ("389", 200),
        ("before seed 4", 200),
        ("before seed 2", -1),
        ("t001-s000000400", 400),
        ("10", -1),
        ("t001-s000000100", 100),
    ],
)
def test_where_it_lands(old: SmallDaemon, target: str, landing: int) -> None:
    """The newest good state; before a seed means older than its germination; a checkpoint may be one not known good, or
    older than those that the run shows.
    """
    old.restore_points = old.restore_points[1:]
    result = ctl(old, "rollback", "--to", target, "--dry-run")
    assert (result.exit_code == 0) == (landing >= 0)
    if landing < 0:
        assert result.stderr.startswith("error: E-RBK-001: ")
    else:
        assert f"to     step {landing} of timeline 1" in result.stdout
        assert ("NOT known to be good" in result.stdout) == (landing == 400)


def test_a_rollback_that_failed(old: SmallDaemon) -> None:
    """The daemon's own words and exit code 1."""
    old.final_state = v.COMMAND_STATE_FAILED
    old.final_error = command_pb2.CommandError(code="E-RBK-002", message="E-RBK-002: too late")
    result = ctl(old, "rollback", "--to", "200", "--yes")
    assert (result.exit_code, result.stderr) == (1, "error: E-RBK-002: too late\n")


def test_create(old: SmallDaemon) -> None:
    """Waits until it is on disk and names it; the note goes along."""
    made = past.checkpoint(406)
    made.kind = v.CHECKPOINT_KIND_REQUESTED
    old.checkpoints.insert(0, made)
    result = ctl(old, "checkpoint", "create", "--note", "before the change")
    assert (result.exit_code, result.stdout) == (0, "checkpoint t001-s000000406 of step 406\n")
    assert old.asked[-1].checkpoint.note == "before the change"
    values = json.loads(ctl(old, "checkpoint", "create", "-o", "json").stdout)
    assert values["checkpoint"]["checkpointId"] == "t001-s000000406"
    old.final_state = v.COMMAND_STATE_FAILED
    old.final_error = command_pb2.CommandError(message="E-CKP-005: disk full")
    assert ctl(old, "checkpoint", "create").exit_code == 1


def test_list_and_show(old: SmallDaemon) -> None:
    """A line for each, what memory holds, and what is damaged; one with files and settings."""
    old.damaged = [checkpoint_pb.DamagedCheckpoint(checkpoint_id="t001-s000000300", problem="no manifest")]
    text = ctl(old, "checkpoint", "list").stdout
    assert "t001-s000000200  SCHEDULED  1         200   0      yes   12.3 MB" in text
    assert "in memory:\n  step 390 of timeline 1, good, 1 kB" in text
    assert "DAMAGED, never used:\n  t001-s000000300: no manifest" in text
    assert "--page-token 1" in ctl(old, "checkpoint", "list", "--limit", "1").stdout
    text = ctl(old, "checkpoint", "show", "t001-s000000200").stdout
    assert "state.json" in text
    assert '[run]  {"task": "digits"}' in text
    assert json.loads(ctl(old, "checkpoint", "show", "t001-s000000200", "-o", "json").stdout)["directory"] == "/c"


def test_verify(old: SmallDaemon) -> None:
    """Sound ones say so; a damaged one makes exit code 1; one or all, not both and not none."""
    assert ctl(old, "checkpoint", "verify", "t001-s000000200").stdout == "t001-s000000200  sound, 1 kB\n"
    old.problems = {"t001-s000000100": ["host.safetensors is not what was written"]}
    result = ctl(old, "checkpoint", "verify", "--all")
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 3)
    assert "t001-s000000100  DAMAGED: host.safetensors is not what was written" in result.stdout
    assert "1 of 3 checkpoints are damaged" in result.stderr
    rows = json.loads(ctl(old, "checkpoint", "verify", "--all", "-o", "json").stdout)
    assert [bool(row["problems"]) for row in rows] == [False, False, True]
    assert ctl(old, "checkpoint", "verify").exit_code == 2
    assert ctl(old, "checkpoint", "verify", "x", "--all").exit_code == 2


def test_prune(old: SmallDaemon, at_terminal: None) -> None:
    """Shows what would go and asks; a dry run and a no remove nothing; --yes does not ask."""
    assert "1 would go (12.3 MB); 2 stay" in ctl(old, "checkpoint", "prune", "--dry-run").stdout
    assert ctl(old, "checkpoint", "prune", "--keep", "1", answer="n\n").exit_code == 1
    assert [asked.dry_run for asked in old.prunings] == [True, True]
    assert "2 removed" in ctl(old, "checkpoint", "prune", "--keep", "1", answer="y\n").stdout
    assert "2 removed" in ctl(old, "checkpoint", "prune", "--keep", "1", "--yes", "--reason", "full").stdout
    assert [(asked.dry_run, asked.keep) for asked in old.prunings[2:]] == [(True, 1), (False, 1), (False, 1)]
    assert "nothing to remove; 3 stay" in ctl(old, "checkpoint", "prune", "--keep", "5").stdout


def test_prune_without_a_terminal(old: SmallDaemon) -> None:
    """Refused as bad usage unless --yes."""
    assert ctl(old, "checkpoint", "prune").exit_code == 2
    assert [asked.dry_run for asked in old.prunings] == [True]


def test_timelines_are_a_tree(old: SmallDaemon) -> None:
    """Each below the one from whose state it went on: who went back, why, and what became of seeds."""
    past.go_back(old)
    old.timelines.append(state_pb2.Timeline(timeline=3, parent=1, fork_step=100, left_step=260, cause="loss_anomaly"))
    old.run.global_step = 130
    assert ctl(old, "timelines").stdout.splitlines() == [
        "timeline 1: left at step 405",
        "+- timeline 2: from step 200, by policy (it got worse), left at step 260",
        "|     removed seed 4; brought back seed 2",
        "+- timeline 3: from step 100, by the rule loss_anomaly, now at step 130",
    ]
    assert len(json.loads(ctl(old, "timelines", "-o", "json").stdout)["timelines"]) == 3


def test_status_tells_where_the_run_stands(old: SmallDaemon) -> None:
    """Timeline, where this start went on, the newest good state and the age of the last checkpoint."""
    old.run.resumed_from, old.run.catch_up_step = "t001-s000000100", 450
    text = ctl(old, "status").stdout
    rows = dict(line.split("  ", 1) for line in text.splitlines())
    told = {name: value.strip() for name, value in rows.items()}
    assert told["newest good state"] == "step 390 of timeline 1 (memory)"
    assert told["newest good on disk"] == "step 200 of timeline 1 (checkpoint t001-s000000200)"
    assert told["last checkpoint"].startswith("t001-s000000400, ")
    assert (told["resumed from"], told["catching up"]) == ("t001-s000000100", "to step 450")
    past.go_back(old)
    assert "2, from step 200 of timeline 1" in ctl(old, "status").stdout


def test_log_names_timelines_once_there_are_several(old: SmallDaemon) -> None:
    """And the rollback stands between what was before and after it, with who asked for it."""
    assert "timeline" not in ctl(old, "log").stdout
    past.go_back(old)
    lines = ctl(old, "log").stdout.splitlines()
    assert lines[0].startswith("timeline 1  step 90  seed 1")
    assert lines[-1] == (
        "timeline 2  opened: back from step 405 of timeline 1 to step 200 of timeline 1, by policy (it got worse); "
        "removed seed 4; brought back seed 2"
    )
    rows = [json.loads(line) for line in ctl(old, "log", "-o", "json").stdout.splitlines()]
    assert rows[-1]["timelineOpened"]["leftStep"] == "405"


def test_the_story_of_a_seed(old: SmallDaemon) -> None:
    """Who asked, when, why, what the gates saw, what was refused, what a rollback did, and how it stands now."""
    past.go_back(old)
    lines = ctl(old, "log", "--seed", "1", "--why").stdout.splitlines()
    assert lines[0].startswith("2027-01-15 08:01:30, step 90 of timeline 1: seed 1 germinated")
    assert [line.partition(", ")[2] for line in lines[:-1]] == [
        (
            "step 90 of timeline 1: seed 1 germinated: residual_conv at conv1, "
            'as policy had asked because "the loss is flat" [p-1].'
        ),
        "step 100 of timeline 1: it became TRAINING after GERMINATED, by itself, its gate having passed.",
        (
            'step 300 of timeline 1: it became BLENDING after TRAINING, as policy had asked because "it is stable" '
            "[p-4]. G2_STABILITY passed: output ratio was 0.02 over 640 samples, wanted at most 0.5."
        ),
        (
            'step 310 of timeline 1: policy asked to fossilize because "now" [p-7]: rejected, '
            "E-SEED-002: Seed 1 is BLENDING; FOSSILIZE needs PROBATIONARY."
        ),
        (
            "step 200 of timeline 2: a rollback by policy (it got worse) went back from step 405 to step 200 of "
            "timeline 1 and opened timeline 2: seed 1 is TRAINING again, no longer BLENDING."
        ),
    ]
    assert lines[-1] == "Now: seed 1 is TRAINING since step 100 (timeline 1), alpha 0.45."
    assert "seed 2 came back as TRAINING" in ctl(old, "log", "--seed", "2", "--why").stdout
    told = ctl(old, "log", "--seed", "3", "--why").stdout
    assert "is TRAINING again, no longer FOSSILIZED" in told
    assert 'asked to have it compute by kernel abababababab because "a kernel is there for it" [p-10]: done.' in told
    assert 'asked to have it compute by its eager module because "to compare" [p-11]: done.' in told
    lines = ctl(old, "log", "--seed", "4", "--why").stdout.splitlines()
    assert lines[-2].endswith("seed 4 had not germinated then, so it is gone from the run.")
    assert lines[-1] == "Now: seed 4 is not part of the run; a rollback has left it behind."
    rows = [json.loads(line) for line in ctl(old, "log", "--seed", "1", "--why", "-o", "json").stdout.splitlines()]
    assert [row.get("timeline") for row in rows] == [1, 1, 1, 1, 2, None]


def test_what_the_daemon_itself_did_has_a_name(old: SmallDaemon) -> None:
    """`command list` says what a command is also when it has no request."""
    old.past = [
        command_pb2.Command(command_id="d-1", principal="daemon", kind="PolicyPresence"),
        command_pb2.Command(command_id="d-2", principal="operator", kind="emergency"),
        past.command(9, 400, "worse", rollback=command_pb2.CommandRollback(before_seed_id="3")),
        past.command(10, 400, "safe", checkpoint=command_pb2.CommandCheckpoint()),
    ]
    text = ctl(old, "command", "list").stdout
    for word in ("policy presence", "emergency", "rollback to before seed 3", "checkpoint"):
        assert word in text


def test_status_while_the_daemon_starts(old: SmallDaemon) -> None:
    """A run of months is not said to be at step 0 with no state to go back to, only because torch is still loading."""
    old.run.phase = v.TRAINER_PHASE_STARTING
    old.run.stall = "loading"
    old.run.global_step = 0
    told = ctl(old, "status").stdout
    assert "not known before the run is set up" in told
    assert "last checkpoint" in told
    assert not any(word in told for word in ("newest good", "epoch 0", "speed", "parameters"))
