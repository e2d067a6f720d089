"""The line that stays in its place."""

import json

import pytest
from click.testing import CliRunner
from esper.ctl.main import main
from esper.ctl.watch import Picture, line, values
from esper.leyline.v1 import run_service_pb2, state_service_pb2
from esper.leyline.v1 import vocabulary_pb2 as v

from tests.unit.ctl.small_daemon import SmallDaemon


def look(daemon: SmallDaemon, picture: Picture, now_s: float) -> None:
    answer = run_service_pb2.GetRunResponse(run=daemon.run, revision=77)
    picture.take(answer, state_service_pb2.ListSeedsResponse(seeds=daemon.seeds), now_s)


def test_line(daemon: SmallDaemon) -> None:
    """Step, losses, accuracy, speed, time left, and each live seed with stage and alpha."""
    picture = Picture()
    look(daemon, picture, 0.0)
    assert line(picture, 1.0) == (
        "step 405/1500 27% | loss 0.31 | val 0.29 | acc 90.9% | 12.3 k samples/s | ETA 2 s | seed 1 BLENDING a=0.45"
    )
    daemon.seeds[0].stage = v.SEED_STAGE_FOSSILIZED
    look(daemon, picture, 1.0)
    assert line(picture, 1.0).endswith("1 fossilized")


def test_old_numbers_are_never_shown_as_new(daemon: SmallDaemon) -> None:
    """After three silent seconds the line says how old it is."""
    picture = Picture()
    look(daemon, picture, 10.0)
    assert not line(picture, 12.9).startswith("stale")
    assert line(picture, 14.0).startswith("stale 4 s | ")
    assert json.loads(values(picture, 14.0))["staleS"] == 4.0


def test_trouble_comes_first(daemon: SmallDaemon) -> None:
    """An emergency and an unusual phase are words at the front, a stall is named."""
    picture = Picture()
    daemon.run.emergency_level = v.EMERGENCY_LEVEL_HALT
    daemon.run.stall = "data"
    daemon.run.phase = v.TRAINER_PHASE_HALTED
    look(daemon, picture, 0.0)
    told = line(picture, 0.0)
    assert told.startswith("EMERGENCY HALT | HALTED | step")
    assert "stalled: data" in told


@pytest.mark.parametrize(("phase", "code"), [(v.TRAINER_PHASE_FINISHED, 0), (v.TRAINER_PHASE_FAILED, 1)])
def test_watch_ends_with_the_run(daemon: SmallDaemon, phase: v.TrainerPhase, code: int) -> None:
    """In a pipe: plain lines, the last state included; exit 1 if the run failed."""
    daemon.run.phase = phase
    result = CliRunner().invoke(main, ["-a", daemon.address, "watch"])
    assert result.exit_code == code, result.output
    assert "step 405/1500" in result.stdout
    assert "\r" not in result.stdout
    told = CliRunner().invoke(main, ["-a", daemon.address, "watch", "-o", "json"])
    assert json.loads(told.stdout.splitlines()[-1])["run"]["globalStep"] == "405"


def test_watch_follows(daemon: SmallDaemon) -> None:
    """Each update shows the newest numbers, until the run is over."""
    daemon.steps = [405, 410, 1500]
    result = CliRunner().invoke(main, ["-a", daemon.address, "watch", "--interval", "0.1"])
    assert [text.split("/")[0].rpartition(" ")[2] for text in result.stdout.splitlines()] == ["405", "410", "1500"]
