"""What a user gives us to train: one plain function that returns a `Task`.

Training thread (and the command line's `check`). Knows nothing of seeds, sites or the control plane.
"""

import importlib
import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from esperd.leyline.errors import EsperdError

LossFn = Callable[[torch.Tensor, Any], torch.Tensor]
"""(output, targets) to a scalar: the mean over the batch."""

Scheduler = torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau

TaskOptions = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Task:
    """A model and all it takes to train it. Batches are pairs (inputs, targets), batch dimension first."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    """Over the model's parameters; used as it is. On CPU and CUDA prefer `fused=True`."""
    loss_fn: LossFn
    train_data: Iterable[Any]
    """Re-iterable: one pass is one epoch. Resumed exactly inside an epoch: a torch DataLoader (its epoch is walked
    again, unless its workers are persistent) and anything with `state_dict` and `load_state_dict`."""
    eval_data: Iterable[Any]
    """The validation split; read whole, in order, never trained on."""
    metrics: Mapping[str, LossFn] = field(default_factory=dict)
    """Name to (output, targets) -> scalar mean over the batch; computed in validation."""
    scheduler: Scheduler | None = None
    """Stepped once after each optimizer step; a ReduceLROnPlateau after each validation, with its loss."""
    per_sample_loss: LossFn | None = None
    """(output, targets) to one loss per unit, shape (units,): a sample, or a sequence of tokens. Derived from `loss_fn`
    when it is absent, at worst by one call per sample."""
    probe_data: Iterable[Any] | None = None
    """Held-out data on which contributions are measured; `eval_data` when absent. Never training data."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the journal should say about the task, for instance a hash of its data."""
    step_flops: float = 0.0
    """FLOPs of one training step, for a model whose kernels the counter cannot see; 0 counts them on the first step."""


def load_task(spec: str, options: TaskOptions, search_path: Path | None = None) -> Task:
    """Import `package.module:function`, call it with the options and check what it returns.

    `search_path` (the configuration file's folder) is searched first. Raises EsperdError TASK_NOT_FOUND,
    TASK_INVALID, TASK_FAILED (with the user's own frames as metadata `traceback`) or DATA_MISSING.
    """
    build = _import_function(spec, search_path)
    try:
        task = build(**options)
    except EsperdError:
        raise
    except (Exception, SystemExit) as error:  # the task function is the user's: whatever it raises is theirs
        raise _task_failed(spec, error) from error
    check_task(spec, task)
    return task  # type: ignore[no-any-return]  # check_task has just established it


def check_task(spec: str, task: object) -> None:
    """Raise EsperdError TASK_INVALID unless `task` is a Task that can be trained."""
    if not isinstance(task, Task):
        raise EsperdError("TASK_INVALID", task=spec, detail=f"it returned {type(task).__name__}, not a Task")
    for problem in _problems(task):
        raise EsperdError("TASK_INVALID", task=spec, detail=problem)


def user_traceback(error: BaseException) -> str:
    """The traceback of `error`, reduced to the frames of the user's own code (all frames, if none is theirs)."""
    summary = traceback.TracebackException.from_exception(error)
    own = [frame for frame in summary.stack if not _is_ours(frame.filename)]
    if own:
        summary.stack = traceback.StackSummary.from_list(own)
    summary.__cause__ = summary.__context__ = None
    return "".join(summary.format()).rstrip()


def describe(error: BaseException) -> str:
    """Type and message in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _import_function(spec: str, search_path: Path | None) -> Callable[..., Any]:
    module_name, colon, function_name = spec.partition(":")
    if not colon or not module_name or not function_name:
        raise EsperdError(
            "TASK_NOT_FOUND", task=spec or "(empty)", detail="it is not of the form package.module:function"
        )
    if search_path is not None and str(search_path) not in sys.path:
        sys.path.insert(0, str(search_path))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise EsperdError("TASK_NOT_FOUND", task=spec, detail=f"there is no module {error.name}") from error
        raise _task_failed(spec, error) from error
    except (Exception, SystemExit) as error:  # importing runs the user's module: whatever it raises is theirs
        raise _task_failed(spec, error) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise EsperdError("TASK_NOT_FOUND", task=spec, detail=f"{module_name} has no function {function_name}")
    return function  # type: ignore[no-any-return]  # any callable will do


def _task_failed(spec: str, error: BaseException) -> EsperdError:
    return EsperdError("TASK_FAILED", task=spec, detail=describe(error), traceback=user_traceback(error))


def _problems(task: Task) -> Iterable[str]:
    for name, expected in (("model", nn.Module), ("optimizer", torch.optim.Optimizer)):
        given = getattr(task, name)
        if not isinstance(given, expected):
            yield f"{name} is {type(given).__name__}, not a {expected.__module__}.{expected.__name__}"
            return
    owned = {id(p) for group in task.optimizer.param_groups for p in group["params"]}
    if not any(id(p) in owned for p in task.model.parameters()):
        yield "the optimizer holds no parameter of the model"
    for name, function in (("loss_fn", task.loss_fn), *((f"metrics[{n!r}]", f) for n, f in task.metrics.items())):
        if not _is_callable(function):
            yield f"{name} is not callable"
    if task.scheduler is not None and not hasattr(task.scheduler, "step"):
        yield f"scheduler is {type(task.scheduler).__name__}, without a step method"
    for name in ("train_data", "eval_data", "probe_data"):
        yield from _data_problems(name, getattr(task, name))


def _data_problems(name: str, data: object) -> Iterable[str]:
    if data is None:
        if name != "probe_data":
            yield f"{name} is missing"
        return
    if not hasattr(data, "__iter__"):
        yield f"{name} is {type(data).__name__}, which cannot be iterated over"
        return
    if hasattr(data, "__next__"):
        yield f"{name} is an iterator, good for one pass only; give the thing it was made from"
    if isinstance(data, DataLoader) and data.num_workers > 0 and _starts_by_fork(data):
        yield f"{name} forks its workers, which is unsafe beside grpc; pass multiprocessing_context='forkserver'"


def _is_callable(given: object) -> bool:
    return callable(given)


def _starts_by_fork(loader: DataLoader[Any]) -> bool:
    context = loader.multiprocessing_context or multiprocessing
    return str(context.get_start_method()) == "fork"


def _is_ours(filename: str) -> bool:
    if filename.startswith("<"):
        return True
    path = Path(filename)
    return path.is_relative_to(_TORCH) or (path.is_relative_to(_ESPERD) and not path.is_relative_to(_EXAMPLES))


_ESPERD = Path(__file__).resolve().parent.parent
_EXAMPLES = _ESPERD / "examples"
_TORCH = Path(torch.__file__).resolve().parent
