"""The same model, data and fused optimizer for every loop: an MLP that is as wide as its step is to be long.

Training thread. Batches repeat for ever, so that no epoch ends and nothing but steps is timed.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from esperd.bridge.bridge import Bridge
from esperd.config.settings import GrowthSettings, Settings, TrainingSettings
from esperd.tolaria.task import Task
from esperd.tolaria.trainer import Trainer

LEARNING_RATE = 1e-5
"""So small that the model stays where it is: converged weights bring denormal numbers, which take longer."""
NUM_FEATURES, NUM_CLASSES, BATCH_SIZE, NUM_BATCHES = 64, 10, 64, 32
SITE = "2"
"""The middle layer; wherever nothing grows there it must cost nothing."""

Batch = tuple[Tensor, Tensor]
Loop = Callable[[int], None]
"""Takes so many steps."""


class Batches:
    """The same few batches, for ever."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(NUM_BATCHES, BATCH_SIZE, NUM_FEATURES, generator=generator)
        self.batches: list[Batch] = [(part, part[:, :NUM_CLASSES].argmax(1)) for part in x]

    def __iter__(self) -> Iterator[Batch]:
        return itertools.cycle(self.batches)


def make_model(width: int) -> nn.Module:
    """Three layers; always the same numbers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(NUM_FEATURES, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, NUM_CLASSES),
    )


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """What every loop here uses."""
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)


@dataclass(frozen=True, slots=True)
class Size:
    """One size of step: what it should take, and the width that takes about that."""

    name: str
    width: int


def calibrate(target_ms: float) -> Size:
    """Find the width whose bare step takes about so long."""
    width = 32
    for _ in range(6):
        loop = bare_loop(width)
        loop(5)
        step_ms = min(_processor_s(loop, 5) for _ in range(5)) / 5 * 1e3
        grown = max(8, round(width * math.sqrt(target_ms / step_ms) / 8) * 8)
        if abs(step_ms / target_ms - 1.0) < 0.1 or grown == width:
            break
        width = min(grown, width * 8)
    return Size(f"{target_ms:g} ms", width)


def bare_loop(width: int) -> Loop:
    """The plain loop that anybody would write."""
    model = make_model(width)
    optimizer = make_optimizer(model)
    batches = iter(Batches())

    def steps(num_steps: int) -> None:
        for inputs, targets in itertools.islice(batches, num_steps):
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return steps


def make_trainer(width: int, bridge: Bridge, growth: GrowthSettings | None = None) -> Trainer:
    """The daemon's trainer over the same task, with default settings and one site; it has taken no step yet."""
    model, data = make_model(width), Batches()
    task = Task(
        model=model,
        optimizer=make_optimizer(model),
        loss_fn=functional.cross_entropy,
        train_data=data,
        eval_data=data.batches[:2],
    )
    settings = Settings(training=TrainingSettings(device="cpu"), growth=growth or GrowthSettings(sites=(SITE,)))
    trainer = Trainer(task, settings, bridge, run_id="bench", task_name="bench")
    trainer.prepare()
    return trainer


def trainer_loop(trainer: Trainer) -> Loop:
    """The daemon's step, so many times."""

    def steps(num_steps: int) -> None:
        for _ in range(num_steps):
            trainer.step()

    return steps


def _processor_s(loop: Loop, num_steps: int) -> float:
    began_s = time.thread_time()
    loop(num_steps)
    return time.thread_time() - began_s
