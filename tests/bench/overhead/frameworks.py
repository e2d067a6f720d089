"""Other people's trainers over the same model, data and optimizer, beside the bare loop; those that are installed.

Training thread, without a control plane: what each of them costs by itself.
"""

import importlib.util
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.nn import functional

from tests.bench.overhead import duel
from tests.bench.overhead.workload import Batch, Batches, Loop, bare_loop, calibrate, make_model, make_optimizer
from tests.bench.report import Row, median_row

STEP_MS = 0.25
BLOCK_STEPS = 400
ROUNDS = 7


def rows() -> list[Row]:
    """Extra microseconds a step of each framework that can be imported."""
    width = calibrate(STEP_MS).width
    bare = bare_loop(width)
    found: list[Row] = []
    for module, make in FRAMEWORKS.items():
        if importlib.util.find_spec(module) is not None:
            pairs = [pair for _ in range(ROUNDS) for pair in _pairs(bare, make(width))]
            found.append(median_row(f"{STEP_MS:g} ms, {module}, extra", [pair.extra_us for pair in pairs], "us"))
    return found


def _pairs(bare: Loop, measured: Callable[[int], float]) -> Iterator[duel.Pair]:
    bare(20)
    bare_s = duel.timed(bare, BLOCK_STEPS)
    yield duel.Pair(bare_s, measured(BLOCK_STEPS), BLOCK_STEPS)


class _Repeated(torch.utils.data.IterableDataset[Batch]):
    """So many of the batches."""

    def __init__(self, num_batches: int) -> None:
        self._num_batches = num_batches

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(Batches()), self._num_batches)


def _lightning(width: int) -> Callable[[int], float]:
    import lightning.pytorch as pl

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model(width)
            self.stamps_s: list[float] = []

        def training_step(self, batch: Batch, _: int) -> torch.Tensor:
            return functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return make_optimizer(self.model)

        def on_train_batch_start(self, *_: Any) -> None:
            self.stamps_s.append(time.perf_counter())

    def measured(num_steps: int) -> float:
        module = Module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                max_steps=num_steps + 21, accelerator="cpu", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            loader = torch.utils.data.DataLoader(_Repeated(num_steps + 21), batch_size=None)
            trainer.fit(module, loader)
        return module.stamps_s[-1] - module.stamps_s[-1 - num_steps]

    return measured


def _accelerate(width: int) -> Callable[[int], float]:
    from accelerate import Accelerator  # type: ignore[import-untyped]  # it publishes none

    accelerator = Accelerator(cpu=True)
    model = make_model(width)
    model, optimizer = accelerator.prepare(model, make_optimizer(model))
    batches = iter(Batches())

    def steps(num_steps: int) -> None:
        for inputs, targets in islice(batches, num_steps):
            with accelerator.accumulate(model):
                loss = functional.cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()

    steps(20)
    return lambda num_steps: duel.timed(steps, num_steps)


def _ignite(width: int) -> Callable[[int], float]:
    from ignite.engine import Engine

    model = make_model(width)
    optimizer = make_optimizer(model)

    def update(_: Any, batch: Batch) -> float:
        loss = functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def steps(num_steps: int) -> None:
        Engine(update).run(Batches(), epoch_length=num_steps)

    steps(20)
    return lambda num_steps: duel.timed(steps, num_steps)


FRAMEWORKS: dict[str, Callable[[int], Callable[[int], float]]] = {
    "lightning": _lightning,
    "accelerate": _accelerate,
    "ignite": _ignite,
}
