"""The demo's one calm line."""

import io
import math

import pytest
from esper.leyline.v1.state_pb2 import Run, SeedState
from esper.leyline.v1.vocabulary_pb2 import SEED_STAGE_BLENDING, SEED_STAGE_TRAINING
from rich.console import Console

from esperd.cli.demo.live import LiveLine, describe_run


def test_the_line_tells_step_loss_accuracy_and_every_seed() -> None:
    """A seed has its site, blueprint and stage, and its alpha while that is between 0 and 1."""
    run = Run(global_step=700, num_steps_total=1500, train_loss=0.5123, metrics={"accuracy": 0.9})
    seeds = [
        SeedState(site="block1", blueprint_id="residual_conv", stage=SEED_STAGE_BLENDING, alpha=0.4),
        SeedState(site="block2", blueprint_id="norm", stage=SEED_STAGE_TRAINING),
    ]
    assert describe_run("tamiyo-0", run, seeds) == (
        "tamiyo-0  step 700/1500  loss 0.512  accuracy 90.0 %  block1:residual_conv blending 0.40  block2:norm training"
    )


def test_what_is_not_known_yet_is_left_out() -> None:
    """Before the first step there is no loss; the cause of a stall is told."""
    run = Run(num_steps_total=10, train_loss=math.nan, stall="loading")
    assert describe_run("x", run, []) == "x  step 0/10  (loading)"


def test_a_pipe_gets_a_line_now_and_then() -> None:
    """Where nothing can be redrawn, lines are few."""
    stream = io.StringIO()
    with LiveLine(Console(file=stream), num_runs=6) as line:
        line.show("x", "a")
        line.show("x", "b")
    assert stream.getvalue() == "0/6 runs  a\n"


def test_the_line_stays_with_one_run_until_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs at once do not take turns on it."""
    monkeypatch.setattr("esperd.cli.demo.live.PIPED_INTERVAL_S", 0.0)
    stream = io.StringIO()
    with LiveLine(Console(file=stream), num_runs=2) as line:
        line.show("x", "first")
        line.show("y", "hidden")
        line.leave("y")
        line.set_progress(1)
        line.leave("x")
        line.show("y", "second")
    assert stream.getvalue().splitlines() == ["0/2 runs  first", "1/2 runs  second"]
