"""What an operator types, and what comes of it."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from esper.ctl.main import main
from esper.leyline.v1 import command_pb2, command_service_pb2, state_service_pb2, telemetry_service_pb2
from esper.leyline.v1 import vocabulary_pb2 as v

from esperd.leyline.errors import EsperdError
from tests.unit.ctl.small_daemon import SmallDaemon


def ctl(daemon: SmallDaemon, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["-a", daemon.address, *arguments], catch_exceptions=False)


READS = [
    ("status",), ("seeds",), ("seed", "1"), ("sites",), ("optimizers",), ("info",), ("log",), ("log", "--why"),
    ("command", "list"), ("command", "get", "c-1"), ("emergency", "list"), ("breaker", "list"), ("telemetry", "--list"),
    ("timelines",), ("log", "--seed", "1", "--why"), ("checkpoint", "list"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_every_read_in_every_form(daemon: SmallDaemon, arguments: tuple[str, ...], output: str) -> None:
    """Each read answers as a table, as JSON and as YAML that parse to the same."""
    result = ctl(daemon, *arguments, "-o", output)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip()
    if output == "json":
        for line in result.stdout.splitlines() if arguments[0] == "log" else [result.stdout]:
            json.loads(line)
    elif output == "yaml":
        assert yaml.safe_load(result.stdout)


EVIL = "fine\x1b[2J\x1b]0;owned\x07\nstep 9  seed 9 FOSSILIZED\x9b1m"
"""A text that clears a terminal, names its window, and looks like a line of our own."""


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_what_others_wrote_stays_text(daemon: SmallDaemon, arguments: tuple[str, ...], output: str) -> None:
    """No reason, name or failure of somebody else moves the cursor of who reads it, nor forges a line of a table."""
    causing = command_pb2.Command(command_id="c-1", principal="policy", request={"reason": EVIL})
    daemon.past = [causing]
    daemon.run.task = daemon.run.failure = daemon.run.stall = EVIL
    daemon.seeds[0].site = daemon.seeds[0].note = EVIL
    daemon.sites[0].site = EVIL
    daemon.stories["1"] = [state_service_pb2.SeedTransition(cause="c-1", global_step=7)]
    shown = ctl(daemon, *arguments, "-o", output).output
    assert all(character.isprintable() for character in shown.replace("\n", ""))
    assert output != "table" or "\nstep 9" not in shown


def test_what_is_followed_or_refused_stays_text(daemon: SmallDaemon) -> None:
    """So do an event of the telemetry and the words of an error."""
    event = telemetry_service_pb2.TelemetryEvent(event_id="config.reloaded", description=EVIL, level="info")
    frame = telemetry_service_pb2.TelemetryFrame(events=[event])
    daemon.frames = [telemetry_service_pb2.StreamTelemetryResponse(frame=frame)]
    told = ctl(daemon, "telemetry").stdout
    daemon.refusal = EsperdError("RUN_FAILED", detail=EVIL)
    told += ctl(daemon, "status").stderr
    assert told.count("owned") == 2
    assert all(character.isprintable() for character in told.replace("\n", ""))
    assert "\nstep 9" not in told


def test_json_is_protobuf_json(daemon: SmallDaemon) -> None:
    """Field names and values are those of protobuf's JSON mapping, fields at their default included."""
    found = json.loads(ctl(daemon, "seeds", "-o", "json").stdout)
    assert found["seeds"][0]["seedId"] == "1"
    assert found["seeds"][0]["stage"] == "SEED_STAGE_BLENDING"
    assert found["seeds"][0]["note"] == ""


def test_tables_say_what_matters(daemon: SmallDaemon) -> None:
    """Stage words, gate evidence with its verdict as a word, shapes and costs."""
    assert "BLENDING" in ctl(daemon, "seeds").stdout
    assert "405 of 1500" in ctl(daemon, "status").stdout
    assert "ok   output_ratio 0.02, at most 0.5" in ctl(daemon, "log", "--why").stdout
    assert "64x8x4x4 float32  vacant" in ctl(daemon, "sites").stdout
    assert "no seeds" in ctl(daemon, "seeds", "--stage", "culled").stdout


def last(daemon: SmallDaemon) -> command_pb2.AdaptationCommand:
    return daemon.asked[-1]


def test_germinate_says_everything(daemon: SmallDaemon) -> None:
    """Blueprint, parameters, modes, ramp and how far the daemon advances it."""
    result = ctl(
        daemon, "germinate", "conv1", "residual_conv", "--parameter", "expansion=2", "--until", "training",
        "--blend-mode", "bernoulli", "--training-mode", "shadow_forward", "--isolation", "strict",
        "--alpha-steps", "50", "--alpha-curve", "linear", "--alpha-target", "0.8", "--wait", "--reason", "try",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "command c-1 APPLIED at step 406, revision 78, seed 7\n")
    asked = last(daemon).seed_operation
    assert (asked.site, asked.blueprint_id, dict(asked.parameters)) == ("conv1", "residual_conv", {"expansion": 2.0})
    assert (asked.auto_advance, asked.auto_advance_until) == (True, v.SEED_STAGE_TRAINING)
    assert (asked.blend_mode, asked.training_mode, asked.isolation) == (
        v.BLEND_MODE_BERNOULLI,
        v.TRAINING_MODE_SHADOW_FORWARD,
        v.ISOLATION_STRICT,
    )
    assert (asked.alpha.num_steps, asked.alpha.curve, round(asked.alpha.target, 3)) == (50, v.ALPHA_CURVE_LINEAR, 0.8)


@pytest.mark.parametrize(
    ("arguments", "operation"),
    [
        (("advance", "1"), v.SEED_OPERATION_ADVANCE),
        (("advance", "1", "--to", "blending"), v.SEED_OPERATION_START_GRAFTING),
        (("advance", "1", "--to", "SHADOWING"), v.SEED_OPERATION_STABILIZE),
        (("fine-tune", "1"), v.SEED_OPERATION_FINE_TUNE),
        (("cull", "1"), v.SEED_OPERATION_CULL),
        (("withdraw", "1"), v.SEED_OPERATION_CANCEL),
        (("fossilize", "1"), v.SEED_OPERATION_FOSSILIZE),
        (("set-alpha", "1", "0.5"), v.SEED_OPERATION_SET_ALPHA),
    ],
)
def test_seed_operations(daemon: SmallDaemon, arguments: tuple[str, ...], operation: int) -> None:
    """Each verb asks for its operation on the named seed."""
    assert ctl(daemon, *arguments).exit_code == 0
    assert (last(daemon).target_seed_id, last(daemon).seed_operation.operation) == ("1", operation)


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        ("pause", command_pb2.RUN_ACTION_PAUSE),
        ("resume", command_pb2.RUN_ACTION_RESUME),
        ("stop", command_pb2.RUN_ACTION_STOP),
    ],
)
def test_run_control(daemon: SmallDaemon, arguments: str, action: int) -> None:
    """Pause, resume and stop, with a reason."""
    assert ctl(daemon, arguments, "--wait", "--reason", "look").exit_code == 0
    assert (last(daemon).run_control.action, last(daemon).reason) == (action, "look")


def test_hyperparameters(daemon: SmallDaemon) -> None:
    """`lr` and `hyper` say which optimizer and which values."""
    assert ctl(daemon, "lr", "0.001", "--of", "seed:3").exit_code == 0
    assert last(daemon).optimizer_adjustment.optimizer_id == "seed:3"
    assert dict(last(daemon).optimizer_adjustment.hyperparameters) == {"lr": 0.001}
    assert ctl(daemon, "hyper", "weight_decay=0.1", "lr=0.01").exit_code == 0
    assert dict(last(daemon).optimizer_adjustment.hyperparameters) == {"weight_decay": 0.1, "lr": 0.01}
    assert ctl(daemon, "hyper", "lr").exit_code == 2
    assert ctl(daemon, "hyper", "lr=1", "lr=2").exit_code == 2


def test_breakers_and_emergencies(daemon: SmallDaemon) -> None:
    """Breakers are switched by name; emergencies are raised and cleared with a reason, which they need."""
    assert ctl(daemon, "breaker", "open", "isolation", "--reason", "test").exit_code == 0
    assert last(daemon).circuit_breaker.desired_state == v.CIRCUIT_BREAKER_STATE_OPEN
    raised = ctl(daemon, "emergency", "raise", "halt", "--reason", "fire")
    assert "e-1 HALT acknowledged at step 406" in raised.stdout
    assert "journal" not in raised.stdout
    cleared = ctl(daemon, "emergency", "clear", "e-1", "--reason", "out").stdout
    assert "now none" in cleared
    assert "the journal cannot be written" in cleared  # this daemon's clearances are not durable
    assert ctl(daemon, "emergency", "raise", "halt").exit_code == 2


def test_terms_of_a_change(daemon: SmallDaemon) -> None:
    """Every term goes into the signed command."""
    ctl(
        daemon, "cull", "1", "--request-id", "mine", "--expected-revision", "77", "--at-step", "500",
        "--expires-in", "30", "--reason", "gone",
    )  # fmt: skip
    asked = last(daemon)
    assert (asked.request_id, asked.expected_revision, asked.apply_at.global_step) == ("mine", 77, 500)
    assert asked.HasField("expire_time")
    ctl(daemon, "cull", "1", "--at-epoch")
    assert last(daemon).apply_at.epoch_boundary
    assert ctl(daemon, "cull", "1", "--at-epoch", "--at-step", "5").exit_code == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--at-step", str(2**64)), ("--expected-revision", str(2**64)), ("--alpha-steps", str(2**32)),
        ("--alpha-target", "nan"), ("--expires-in", "nan"), ("--expires-in", "inf"), ("--expires-in", "1e12"),
        ("--timeout", "nan"), ("--timeout", "inf"), ("--timeout", "1e300"),
    ],
)  # fmt: skip
def test_numbers_that_fit_nowhere_are_bad_usage(daemon: SmallDaemon, option: str, value: str) -> None:
    """What the wire or a timer cannot hold is refused before anything is sent."""
    result = ctl(daemon, "advance", "1", "--wait", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
    assert not daemon.asked


def test_the_greatest_numbers_are_sent(daemon: SmallDaemon) -> None:
    """The limits are those of the wire."""
    ctl(
        daemon, "advance", "1", "--at-step", str(2**64 - 1), "--expected-revision", str(2**64 - 1),
        "--alpha-steps", str(2**32 - 1), "--expires-in", str(30 * 86400),
    )  # fmt: skip
    asked = last(daemon)
    assert asked.apply_at.global_step == asked.expected_revision == 2**64 - 1
    assert asked.seed_operation.alpha.num_steps == 2**32 - 1


def test_validate_only(daemon: SmallDaemon) -> None:
    """A command that is only checked changes nothing and says so."""
    assert ctl(daemon, "cull", "1", "--validate-only", "--wait").exit_code == 0  # there is nothing to wait for
    result = ctl(daemon, "cull", "1", "--validate-only")
    assert (result.exit_code, result.stdout) == (0, "valid; nothing was changed\n")


def test_without_wait_the_command_is_accepted(daemon: SmallDaemon) -> None:
    """Exit 0 as soon as it is durable."""
    assert ctl(daemon, "cull", "1").stdout == "command c-1 ACCEPTED\n"


def test_wait_exits_1_when_it_did_not_take_effect(daemon: SmallDaemon) -> None:
    """The daemon's own words go to stderr, also with -o json."""
    daemon.final_state = v.COMMAND_STATE_REJECTED
    daemon.final_error.CopyFrom(command_pb2.CommandError(code="E-SEED-005", message="E-SEED-005: G2 failed. Cull it."))
    for output in ("table", "json"):
        result = ctl(daemon, "advance", "1", "--wait", "-o", output)
        assert result.exit_code == 1
        assert result.stderr == "error: E-SEED-005: G2 failed. Cull it.\n"
    assert json.loads(result.stdout)["state"] == "COMMAND_STATE_REJECTED"


def test_wait_that_ends_too_early(daemon: SmallDaemon) -> None:
    """No outcome in time is an error that says how to look again."""
    daemon.final_state = v.COMMAND_STATE_ACCEPTED
    result = ctl(daemon, "advance", "1", "--wait", "--timeout", "0.05")
    assert result.exit_code == 1
    assert "esperctl command get c-1" in result.stderr


def test_refusals_come_from_the_catalogue(daemon: SmallDaemon) -> None:
    """Code, what happened, what to do next; exit 1."""
    daemon.refusal = EsperdError("SEED_UNKNOWN", seed_id=9)
    result = ctl(daemon, "seed", "9")
    assert result.exit_code == 1
    assert result.stderr == "error: E-SEED-001: There is no seed 9. List the seeds with esperctl seeds.\n"


def test_nobody_answers(tmp_path: Path) -> None:
    """No daemon: exit 3."""
    result = CliRunner().invoke(main, ["-a", f"unix:{tmp_path}/no.sock", "status"])
    assert result.exit_code == 3
    assert result.stderr.startswith("error: E-CLI-001: No daemon answers at unix:")


def test_address_and_key_are_found(daemon: SmallDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only socket in the usual places is the daemon; operator.key beside it signs."""
    (tmp_path / "esperd-run").symlink_to(daemon.socket.parent)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["pause", "--wait"]).exit_code == 0
    (tmp_path / "run").symlink_to(daemon.socket.parent)
    several = CliRunner().invoke(main, ["status"])
    assert several.exit_code == 2
    assert "several daemons" in several.stderr


def test_nothing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket at all is an unreachable daemon."""
    for name in ("ESPER_ADDRESS", "ESPER_KEY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["status"]).exit_code == 3


def test_change_without_a_key(daemon: SmallDaemon) -> None:
    """A change needs a key; a read does not. A key file that anybody may read is refused."""
    daemon.key.unlink()
    assert ctl(daemon, "status").exit_code == 0
    result = ctl(daemon, "pause")
    assert result.exit_code == 1
    assert "E-CLI-002" in result.stderr
    daemon.key.write_text("x")
    daemon.key.chmod(0o644)
    refused = ctl(daemon, "--key", str(daemon.key), "status")
    assert refused.exit_code == 1
    assert "E-CFG-004" in refused.stderr


def test_commands_are_followed(daemon: SmallDaemon) -> None:
    """One line for each change, none for a bookmark; as JSON one message on each line."""
    pause = command_pb2.AdaptationCommand(
        reason="a \x1b[2Jlook", run_control=command_pb2.CommandRunControl(action=command_pb2.RUN_ACTION_PAUSE)
    )
    accepted = command_pb2.Command(
        command_id="c-1", state=v.COMMAND_STATE_ACCEPTED, principal="operator", request=pause
    )
    rejected = command_pb2.Command(command_id="c-1", state=v.COMMAND_STATE_REJECTED, global_step=7, principal="tamiyo")
    rejected.error.reason = "RUN_STARTING"
    daemon.changes = [command_service_pb2.WatchCommandsResponse(commands=[one]) for one in (accepted, rejected)]
    result = ctl(daemon, "command", "watch", "--latest")
    first, second = result.stdout.splitlines()
    assert first.startswith("c-1  ACCEPTED  ")
    assert first.endswith(", by operator: a \\x1b[2Jlook"), "what others wrote does not move the cursor"
    assert second.startswith("c-1  REJECTED at step 7 (RUN_STARTING)")
    assert daemon.watched[0].delivery == state_service_pb2.DELIVERY_POLICY_LATEST
    lines = ctl(daemon, "command", "watch", "-o", "json").stdout.splitlines()
    told = [one["state"] for line in lines for one in json.loads(line)["commands"]]
    assert told == ["COMMAND_STATE_ACCEPTED", "COMMAND_STATE_REJECTED"]


def test_telemetry_lines(daemon: SmallDaemon) -> None:
    """One line for the newest sample of each series, one for each event, and what was lost on stderr."""
    series = telemetry_service_pb2.MetricSeries(name="tolaria.step.loss", global_steps=[400, 405], values=[0.5, 0.4])
    event = telemetry_service_pb2.TelemetryEvent(
        event_id="guard.tripped", description="seed 1", level="error", global_step=405
    )
    frame = telemetry_service_pb2.TelemetryFrame(series=[series], events=[event], num_ring_dropped=3)
    daemon.frames = [telemetry_service_pb2.StreamTelemetryResponse(frame=frame)]
    result = ctl(daemon, "telemetry")
    assert result.stdout == "step 405  tolaria.step.loss  0.4\nstep 405  ERROR  guard.tripped: seed 1\n"
    assert "lost: 3 samples" in result.stderr
    assert result.exit_code == 1, "the test's frames are used up"
