"""The demo's numbers: arms over random seeds, paired differences, and the fixed shape of its JSON."""

import io
import json
import math

import pytest
from rich.console import Console

from esperd.cli.demo.report import Measured, print_table, to_json
from esperd.cli.demo.results import ARMS, Grown, GrownRun, RunResult, compare, summarise
from esperd.cli.demo.tasks import DIGITS


def run(val_loss: float, accuracy: float = 0.9, steps: int = 100) -> RunResult:
    """A result with this loss."""
    return RunResult(val_loss, accuracy, params=426, train_flops=1e9, steps=steps)


def measured(num_random_seeds: int) -> Measured:
    """Made-up runs of every arm."""
    results = {arm: [run(0.3 + 0.01 * i + 0.1 * k) for i in range(num_random_seeds)] for k, arm in enumerate(ARMS)}
    tamiyo = [
        GrownRun(results["tamiyo"][i], (Grown("block1", "residual_conv", {}),), 2, daemon_pid=10 + i, policy_pid=20 + i)
        for i in range(num_random_seeds)
    ]
    return Measured(DIGITS, results, tamiyo)


def test_an_arm_is_mean_and_sample_deviation() -> None:
    """Two runs: their mean, and the deviation with n - 1."""
    summary = summarise([run(0.2, steps=100), run(0.4, steps=200)])
    assert summary.val_loss.mean == pytest.approx(0.3)
    assert summary.val_loss.std == pytest.approx(math.sqrt(0.02))
    assert summary.steps == 150


def test_differences_are_paired_by_random_seed() -> None:
    """A constant shift over differing seeds is certain, however wide the seeds spread."""
    first = [run(0.1), run(0.5), run(0.9)]
    second = [run(0.21), run(0.6), run(1.0)]
    difference = compare(first, second)
    assert difference.delta == pytest.approx(-0.31 / 3)
    assert difference.p is not None
    assert difference.p < 0.01


def test_one_random_seed_has_no_p_value() -> None:
    """Nothing can be tested with one pair."""
    assert compare([run(0.1)], [run(0.2)]).p is None


def test_the_json_has_exactly_the_published_shape() -> None:
    """Keys as the contract names them; the process ids are those of the last run."""
    document = json.loads(json.dumps(to_json(measured(3)), allow_nan=False))
    assert set(document) == {
        "task", "random_seeds", "arms", "paired", "seeds", "daemon_pid", "policy_pid"
    }  # fmt: skip
    assert set(document["arms"]) == {"host", "host_equal_flops", "random", "tamiyo", "scratch", "static"}
    for arm in document["arms"].values():
        assert set(arm) == {"val_loss", "val_accuracy", "params", "train_flops", "steps"}
        assert set(arm["val_loss"]) == {"mean", "std"}
    assert set(document["paired"]["tamiyo_vs_host"]) == {"delta", "p"}
    assert document["seeds"] == {"fossilized": 3, "culled": 6}
    assert (document["daemon_pid"], document["policy_pid"]) == (12, 22)


def test_numbers_that_are_not_there_are_null() -> None:
    """A task without accuracy gives null, which is JSON, and not NaN, which is none."""
    runs = {arm: [run(0.3, math.nan)] for arm in ARMS}
    document = to_json(Measured(DIGITS, runs, [GrownRun(runs["tamiyo"][0], (), 0, 1, 2)]))
    assert document["arms"]["host"]["val_accuracy"]["mean"] is None
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize(
    ("num_random_seeds", "words"), [(1, "One random seed"), (3, "over 3 random seeds; differences")]
)
def test_the_table_says_how_far_its_numbers_carry(num_random_seeds: int, words: str) -> None:
    """Every arm is a row; few random seeds are called few."""
    stream = io.StringIO()
    print_table(measured(num_random_seeds), Console(file=stream, width=160))
    text = stream.getvalue()
    assert words in text
    for label in ("host alone, equal FLOPs", "final shape, scratch", "well-chosen static"):
        assert label in text
