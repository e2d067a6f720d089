"""The line that stays in its place."""

import json

import pytest
from click.testing import CliRunner
from esper.ctl.main import main
from esper.ctl.watch import Picture, line, values
from esper.leyline.v1 import state_pb2, state_service_pb2
from esper.leyline.v1 import vocabulary_pb2 as v

from tests.unit.ctl.small_daemon import SmallDaemon


def snapshot(daemon: SmallDaemon, phase: int = v.TRAINER_PHASE_TRAINING) -> state_service_pb2.WatchStateResponse:
    run = state_pb2.Run()
    run.CopyFrom(daemon.run)
    run.phase = phase  # type: ignore[assignment]
    content = state_service_pb2.StateSnapshot(run=run, seeds=daemon.seeds)
    return state_service_pb2.WatchStateResponse(revision=77, snapshot=content)


def test_line(daemon: SmallDaemon) -> None:
    """Step, losses, accuracy, speed, time left, and each live seed with stage and alpha."""
    picture = Picture()
    picture.take(snapshot(daemon), 0.0)
    assert line(picture, 1.0) == (
        "step 405/1500 27% | loss 0.31 | val 0.29 | acc 90.9% | 12.3 k samples/s | ETA 2 s | seed 1 BLENDING a=0.45"
    )


def test_deltas_and_bookmarks(daemon: SmallDaemon) -> None:
    """A delta changes only what it holds; a bookmark is a sign of life."""
    picture = Picture()
    picture.take(snapshot(daemon), 0.0)
    seed = state_pb2.SeedState(seed_id="1", stage=v.SEED_STAGE_FOSSILIZED)
    picture.take(
        state_service_pb2.WatchStateResponse(revision=78, delta=state_service_pb2.StateDelta(seeds=[seed])), 1.0
    )
    assert line(picture, 1.0).endswith("1 fossilized")
    gone = state_service_pb2.StateDelta(removed_seed_ids=["1"])
    picture.take(state_service_pb2.WatchStateResponse(revision=79, delta=gone), 2.0)
    picture.take(state_service_pb2.WatchStateResponse(revision=80), 9.0)
    assert (picture.seeds, picture.revision, picture.silent_s(9.5)) == ({}, 80, 0.0)


def test_old_numbers_are_never_shown_as_new(daemon: SmallDaemon) -> None:
    """After three silent seconds the line says how old it is."""
    picture = Picture()
    picture.take(snapshot(daemon), 10.0)
    assert not line(picture, 12.9).startswith("stale")
    assert line(picture, 14.0).startswith("stale 4 s | ")
    assert json.loads(values(picture, 14.0))["staleS"] == 4.0


def test_trouble_comes_first(daemon: SmallDaemon) -> None:
    """An emergency and an unusual phase are words at the front, a stall is named."""
    picture = Picture()
    daemon.run.emergency_level = v.EMERGENCY_LEVEL_HALT
    daemon.run.stall = "data"
    picture.take(snapshot(daemon, v.TRAINER_PHASE_HALTED), 0.0)
    told = line(picture, 0.0)
    assert told.startswith("EMERGENCY HALT | HALTED | step")
    assert "stalled: data" in told


@pytest.mark.parametrize(("phase", "code"), [(v.TRAINER_PHASE_FINISHED, 0), (v.TRAINER_PHASE_FAILED, 1)])
def test_watch_ends_with_the_run(daemon: SmallDaemon, phase: int, code: int) -> None:
    """In a pipe: plain lines, the last state included; exit 1 if the run failed."""
    daemon.states = [snapshot(daemon), snapshot(daemon, phase)]
    result = CliRunner().invoke(main, ["-a", daemon.address, "watch"])
    assert result.exit_code == code, result.output
    assert "step 405/1500" in result.stdout
    assert "\r" not in result.stdout
    told = CliRunner().invoke(main, ["-a", daemon.address, "watch", "-o", "json"])
    assert json.loads(told.stdout.splitlines()[-1])["run"]["globalStep"] == "405"
