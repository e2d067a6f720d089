"""The policy's process against a small real daemon: signed decisions, reconnecting, reports, leaving."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from esper.cli import main
from esper.leyline.v1 import command_pb2, state_pb2
from esper.leyline.v1 import vocabulary_pb2 as v

from esperd.leyline.errors import EsperdError
from tests.unit.ctl.small_daemon import SmallDaemon


def packet(daemon: SmallDaemon, step: int, reason: str = "interval", **changes: object) -> state_pb2.SystemStatePacket:
    return state_pb2.SystemStatePacket(
        version=1,
        training_run_id="run-1",
        global_step=step,
        num_steps_total=1500,
        lr_phase="stable",
        revision=step,
        reason=reason,
        validation_loss=0.5,
        training_loss=0.5,
        probe_loss=0.5,
        host_step_flops=64 * 42_000.0,
        sites=daemon.sites if step <= 25 else [],
        **changes,  # type: ignore[arg-type]
    )


def flat_run(daemon: SmallDaemon, until: int) -> list[state_pb2.SystemStatePacket]:
    return [packet(daemon, step) for step in range(25, until + 1, 25)]


def run(daemon: SmallDaemon, tmp_path: Path, *arguments: str) -> Result:
    common = ["tamiyo", "run", "-a", daemon.address, "--state-dir", str(tmp_path), "-o", "json"]
    return CliRunner().invoke(main, [*common, *arguments], catch_exceptions=False)


def commands(daemon: SmallDaemon, operation: int) -> list[command_pb2.AdaptationCommand]:
    return [asked for asked in daemon.asked if asked.seed_operation.operation == operation]


def test_a_whole_life(daemon: SmallDaemon, tmp_path: Path) -> None:
    """Plateau, germination, graft, end of the run: exit code 0, every decision answered and explained."""
    grown = state_pb2.SeedState(
        seed_id="7", stage=v.SEED_STAGE_TRAINING, site="conv1", blueprint_id="residual_conv", requested_by="operator"
    )
    young, old = state_pb2.SeedState(stage_steps=20), state_pb2.SeedState(stage_steps=300)
    young.MergeFrom(grown)
    old.MergeFrom(grown)
    kept = state_pb2.SeedState(seed_id="7", stage=v.SEED_STAGE_FOSSILIZED, site="conv1", blueprint_id="residual_conv")
    daemon.packets = [
        *flat_run(daemon, 100),
        packet(daemon, 200, seed_states=[young]),
        packet(daemon, 600, seed_states=[old]),
        packet(daemon, 800, seed_states=[kept]),
        packet(daemon, 1500, "run_finished", seed_states=[kept]),
    ]
    result = run(daemon, tmp_path)
    assert result.exit_code == 0, result.output
    [germinated] = commands(daemon, v.SEED_OPERATION_GERMINATE)
    assert germinated.seed_operation.auto_advance_until == v.SEED_STAGE_TRAINING
    assert {verdict.rule for verdict in germinated.risk} >= {"blueprint_risk", "feature_coverage"}
    [grafted] = commands(daemon, v.SEED_OPERATION_START_GRAFTING)
    assert (grafted.target_seed_id, grafted.seed_operation.auto_advance) == ("7", True)
    assert len(daemon.decisions) == 8
    assert all(decision.rationale for decision in daemon.decisions)
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["step"] for one in told if one["commands"]] == [100, 600]
    outcomes = {report.outcome for report in daemon.reports.values()}
    assert outcomes == {v.FIELD_REPORT_OUTCOME_SUCCESS}
    assert {report.seed_id for report in daemon.reports.values()} == {"7"}


def test_reconnects_after_a_cut(daemon: SmallDaemon, tmp_path: Path) -> None:
    """A session that breaks is opened again, and what became of its commands is looked up."""
    daemon.packets = [*flat_run(daemon, 100), packet(daemon, 300, "run_finished")]
    daemon.cut_after = 4
    result = run(daemon, tmp_path)
    assert result.exit_code == 0, result.output
    assert len(daemon.openings) == 2
    assert len(commands(daemon, v.SEED_OPERATION_GERMINATE)) == 1
    assert daemon.openings[0].packet_every_steps == 25
    [report] = daemon.reports.values()
    assert (report.seed_id, report.outcome) == ("7", v.FIELD_REPORT_OUTCOME_ABORTED)


def test_a_run_that_is_over_needs_no_policy(daemon: SmallDaemon, tmp_path: Path) -> None:
    """Exit code 0 at once when the run has finished, 1 when it failed."""
    daemon.run.phase = v.TRAINER_PHASE_FINISHED
    assert run(daemon, tmp_path).exit_code == 0
    daemon.run.phase = v.TRAINER_PHASE_FAILED
    daemon.run.failure = "boom"
    result = run(daemon, tmp_path)
    assert result.exit_code == 1
    assert "E-RUN-003: The run failed: boom." in result.stderr


def test_advice_takes_nothing(daemon: SmallDaemon, tmp_path: Path) -> None:
    """In advise mode decisions are recorded and the policy goes on as if they had been."""
    daemon.packets = [*flat_run(daemon, 400), packet(daemon, 1500, "run_finished")]
    assert run(daemon, tmp_path, "--advise").exit_code == 0
    assert daemon.openings[0].mode == v.LEASE_MODE_ADVISE
    assert daemon.reports == {}


@pytest.mark.parametrize(("reason", "code"), [("SIGNATURE_INVALID", 1), ("LEASE_TAKEN", 1)])
def test_refusals_end_it(daemon: SmallDaemon, tmp_path: Path, reason: str, code: int) -> None:
    """A refusal is told in the daemon's words; one that may pass is tried for a while."""
    daemon.refusal = EsperdError(reason, principal="other")
    result = run(daemon, tmp_path, "--connect-timeout", "0.3")
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1].startswith("error: E-")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--packet-every", str(2**32)), ("--dwell", str(2**32)), ("--hold-out", "nan"), ("--connect-timeout", "nan"),
        ("--connect-timeout", "inf"), ("--reconnect-timeout", "1e300"),
    ],
)  # fmt: skip
def test_numbers_that_fit_nowhere_are_bad_usage(daemon: SmallDaemon, tmp_path: Path, option: str, value: str) -> None:
    """What the wire or a timer cannot hold is refused before a session opens."""
    result = run(daemon, tmp_path, option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


def test_a_state_directory_that_cannot_be_is_one_line(daemon: SmallDaemon, tmp_path: Path) -> None:
    """Exit 1 with the path and the system's reason, before a session opens."""
    (tmp_path / "file").touch()
    result = run(daemon, tmp_path, "--state-dir", str(tmp_path / "file" / "x"))
    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path / 'file' / 'x'}: Not a directory\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-o", "text"), "steers run run-1 as policy heuristic\n"),
        (("-o", "text", "--advise"), "advises run run-1 as policy heuristic\n"),
        (("-o", "json"), ""),
        (("-o", "none"), ""),
    ],
)
def test_an_open_session_is_told(daemon: SmallDaemon, tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    """One line on stderr for somebody who reads along; programs get none."""
    daemon.packets = [packet(daemon, 1500, "run_finished")]
    assert run(daemon, tmp_path, *arguments).stderr == line


def test_reports_wait_for_the_daemon(daemon: SmallDaemon, tmp_path: Path) -> None:
    """A report that an earlier process left in its journal is delivered by the next one."""
    line = {
        "report": {
            "report_id": "run-1/old", "run_id": "run-1", "command_id": "old", "seed_id": "1", "outcome": "NEUTRAL",
            "blueprint_id": "norm", "window_steps": 300, "issued_unix_s": 1.0, "policy_version": "heuristic-1",
            "notes": "",
        }
    }  # fmt: skip
    path = tmp_path / "run-1-heuristic-steer.jsonl"
    path.write_text(json.dumps(line) + "\n")
    daemon.packets = [packet(daemon, 1500, "run_finished")]
    assert run(daemon, tmp_path).exit_code == 0
    assert set(daemon.reports) == {"run-1/old"}
    assert json.loads(path.read_text().splitlines()[-1]) == {"stored": "run-1/old"}


class Wild:
    """A third party's policy that raises."""

    name = "wild"
    version = "0"

    def __init__(self, rng: object) -> None:
        pass

    def decide(self, observation: object) -> object:
        raise RuntimeError("wild")


def test_policy_that_raises_waits(daemon: SmallDaemon, tmp_path: Path) -> None:
    """`module:Class` is loaded; what it raises becomes a decision to wait that says so."""
    daemon.packets = [packet(daemon, 25), packet(daemon, 1500, "run_finished")]
    result = run(daemon, tmp_path, "--policy", f"{__name__}:Wild", "--log-level", "error")
    assert result.exit_code == 0
    assert daemon.decisions[0].rationale == "the policy failed: RuntimeError: wild"
    assert not daemon.decisions[0].commands


def test_sigterm_leaves_with_0(daemon: SmallDaemon, tmp_path: Path) -> None:
    """SIGTERM ends the session in order."""
    daemon.packets = [packet(daemon, 25)]
    arguments = ["tamiyo", "run", "-a", daemon.address, "--state-dir", str(tmp_path), "--log-level", "info"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen([sys.executable, "-m", "esper.cli", *arguments], env=environment, stderr=subprocess.PIPE)
    deadline_s = time.monotonic() + 20
    while not daemon.decisions and time.monotonic() < deadline_s:
        time.sleep(0.02)  # another process, so no clock of ours to inject
    child.send_signal(signal.SIGTERM)
    _, log = child.communicate(timeout=20)
    assert child.returncode == 0, log
    assert b"asked to leave" in log
