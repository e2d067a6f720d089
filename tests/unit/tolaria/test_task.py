"""Loading a task function: what is accepted, and the error for everything that is not."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from esperd.leyline.errors import EsperdError
from esperd.tolaria.task import check_task, load_task
from tests.unit.tolaria.harness import make_task

SOURCE = """
from tests.unit.tolaria.harness import make_task

def build(random_seed=0):
    return make_task(random_seed)

def wrong():
    return 3

def broken():
    return deeper()

def deeper():
    raise ValueError("the data is odd")

def leaving():
    raise SystemExit(3)

constant = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a task module in it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_task.py").write_text(SOURCE)
    (tmp_path / "my_bad_task.py").write_text("import no_such_package_at_all\n")
    (tmp_path / "my_leaving_task.py").write_text("import sys\n\nsys.exit('no data')\n")
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
    importlib.invalidate_caches()
    return tmp_path


def test_a_task_is_found_beside_the_configuration_and_gets_its_options(folder: Path):
    """The configuration's folder is on the search path; options are keyword arguments."""
    task = load_task("my_task:build", {"random_seed": 3}, folder)
    assert sum(p.numel() for p in task.model.parameters()) > 0


@pytest.mark.parametrize(
    ("spec", "options", "reason", "words"),
    [
        ("", {}, "TASK_NOT_FOUND", "package.module:function"),
        ("my_task", {}, "TASK_NOT_FOUND", "package.module:function"),
        ("nowhere.to_be_found:build", {}, "TASK_NOT_FOUND", "no module nowhere"),
        ("my_task:absent", {}, "TASK_NOT_FOUND", "no function absent"),
        ("my_task:constant", {}, "TASK_NOT_FOUND", "no function constant"),
        ("my_task:wrong", {}, "TASK_INVALID", "returned int"),
        ("my_task:build", {"speed": 1}, "TASK_FAILED", "TypeError"),
        ("my_bad_task:build", {}, "TASK_FAILED", "no_such_package_at_all"),
        ("my_task:broken", {}, "TASK_FAILED", "ValueError: the data is odd"),
        ("my_task:leaving", {}, "TASK_FAILED", "SystemExit: 3"),
        ("my_leaving_task:build", {}, "TASK_FAILED", "SystemExit: no data"),
    ],
)
def test_everything_else_is_an_error_of_the_catalogue(
    folder: Path, spec: str, options: dict[str, Any], reason: str, words: str
):
    """Which one, and what is wrong."""
    with pytest.raises(EsperdError) as failure:
        load_task(spec, options, folder)
    assert failure.value.reason == reason
    assert words in failure.value.message


def test_the_users_own_frames_come_with_the_error(folder: Path):
    """Not esperd's, not the importer's: the lines the user can change."""
    with pytest.raises(EsperdError) as failure:
        load_task("my_task:broken", {}, folder)
    text = failure.value.metadata["traceback"]
    assert "in broken" in text
    assert "in deeper" in text
    assert "load_task" not in text


def _loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.zeros(4, 6), torch.zeros(4).long()), **options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": 3}, "model is int"),
        ({"optimizer": "adam"}, "optimizer is str"),
        ({"loss_fn": 1}, "loss_fn is not callable"),
        ({"metrics": {"accuracy": 1}}, "metrics['accuracy'] is not callable"),
        ({"scheduler": 1}, "without a step method"),
        ({"train_data": None}, "train_data is missing"),
        ({"eval_data": 5}, "eval_data is int"),
        ({"train_data": iter([])}, "good for one pass only"),
        ({"probe_data": 5}, "probe_data is int"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)])}, "no parameter of the model"),
    ],
)
def test_what_a_task_holds_is_checked(changes: dict[str, Any], words: str):
    """Before anything is trained."""
    with pytest.raises(EsperdError) as failure:
        check_task("t:f", replace(make_task(), **changes))
    assert failure.value.reason == "TASK_INVALID"
    assert words in failure.value.message


def test_forked_workers_are_refused_and_others_are_not(monkeypatch: pytest.MonkeyPatch):
    """grpc is never forked."""
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "fork")
    for loader in (_loader(num_workers=1), _loader(num_workers=1, multiprocessing_context="fork")):
        with pytest.raises(EsperdError, match="forkserver"):
            check_task("t:f", replace(make_task(), train_data=loader))
    check_task("t:f", replace(make_task(), train_data=_loader(num_workers=1, multiprocessing_context="forkserver")))
    check_task("t:f", replace(make_task(), train_data=_loader()))
