"""The built-in tasks: real data that ships inside ordinary packages, and models that learn it."""

import builtins
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from esperd.config.settings import GrowthSettings, RunSettings, Settings, TrainingSettings
from esperd.examples import bytes as byte_text
from esperd.examples import digits, tabular
from esperd.leyline.errors import EsperdError
from esperd.tolaria.check import inspect_task
from esperd.tolaria.task import Task, check_task
from tests.unit.tolaria.harness import Run


def learned(task: Task, num_steps: int) -> tuple[float, float]:
    """Validation loss before and after some steps."""
    run = Run(task).begin()
    run.trainer.safe_point.validate()
    before = run.view.val_loss
    run.steps(num_steps)
    run.trainer.safe_point.validate()
    return before, run.view.val_loss


@pytest.mark.parametrize(
    ("build", "num_parameters"),
    [(digits.build, 426), (byte_text.build, 31_200), (tabular.build, 154)],
)
def test_the_tasks_are_valid_and_of_the_stated_size(build: Callable[..., Task], num_parameters: int):
    """What their module says."""
    task = build()
    check_task("example", task)
    assert sum(p.numel() for p in task.model.parameters()) == num_parameters
    inputs, targets = next(iter(task.train_data))
    assert task.loss_fn(task.model(inputs), targets).isfinite()


@pytest.mark.parametrize(
    ("spec", "sites", "shapes"),
    [
        ("esperd.examples.digits:build", ("block*",), [(4, 4, 4), (8, 2, 2)]),
        ("esperd.examples.bytes:build", ("blocks.*",), [(64, 32)]),
        ("esperd.examples.tabular:build", ("hidden*",), [(4,), (4,)]),
    ],
)
def test_their_sites_admit_seeds(spec: str, sites: tuple[str, ...], shapes: list[tuple[int, ...]]):
    """The named sites exist, with the documented shapes, and offer blueprints."""
    settings = Settings(
        run=RunSettings(task=spec), training=TrainingSettings(device="cpu"), growth=GrowthSettings(sites=sites)
    )
    report = inspect_task(settings)
    assert [site.activation_shape[1:] for site in report.sites] == shapes
    assert all(site.offers for site in report.sites)


@pytest.mark.parametrize(
    ("build", "num_steps"),
    [(lambda: digits.build(num_steps=0), 200), (lambda: byte_text.build(num_steps=0), 60), (tabular.build, 100)],
)
def test_the_tasks_can_be_learned(build: Callable[[], Task], num_steps: int):
    """A few steps lower the validation loss clearly."""
    torch.manual_seed(0)
    before, after = learned(build(), num_steps)
    assert after < 0.9 * before


def test_the_splits_share_nothing():
    """Measured and validated on data that is never trained on, the same in every run."""
    for build in (lambda seed: digits.build(data_seed=seed), lambda seed: tabular.build(data_seed=seed)):
        task, other = build(0), build(1)
        parts = [getattr(task, name).inputs for name in ("train_data", "probe_data", "eval_data")]
        rows = torch.cat([part.flatten(1) for part in parts])
        assert len(rows) == len(torch.unique(rows, dim=0))
        assert torch.equal(parts[2], other.eval_data.inputs)  # type: ignore[attr-defined]
    text = byte_text.load_text()
    task = byte_text.build()
    texts: list[Any] = [getattr(task, name).text for name in ("train_data", "probe_data", "eval_data")]
    assert sum(map(len, texts)) == len(text)
    assert len(texts[0]) > 0.85 * len(text)
    assert task.facts["text_bytes"] == str(len(text))


def test_the_rate_warms_up_holds_and_falls():
    """Fifty steps up, a stable phase, the last 30 % down to nothing."""
    task = digits.build(num_steps=1000, learning_rate=0.01)
    rates = []
    for _ in range(1000):
        rates.append(task.optimizer.param_groups[0]["lr"])
        task.optimizer.step()
        task.scheduler.step()  # type: ignore[union-attr,call-arg]  # a LambdaLR
    assert rates[0] == pytest.approx(0.01 / 50)
    assert rates[49] == rates[699] == 0.01
    assert rates[850] == pytest.approx(0.005)
    assert task.optimizer.param_groups[0]["lr"] == 0.0


def test_missing_data_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Never synthetic data instead."""
    real_import = builtins.__import__

    def without_sklearn(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    for build in (digits.build, tabular.build, byte_text.build):
        with pytest.raises(EsperdError) as failure:
            build()
        assert failure.value.reason == "DATA_MISSING"
    monkeypatch.undo()
    with pytest.raises(EsperdError, match="no table tea"):
        tabular.build(table="tea")
