"""A small task that writes down what every optimizer step made of the host; copied beside a daemon's configuration.

Imports nothing of the tests. `bare_trajectory` is the same training as the plain loop that everybody knows: what a
daemon's run must equal, bit for bit, whatever happens around it.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task

TRAJECTORY = "trajectory.txt"
"""One line a step, beside this file: a digest of the host's parameters and buffers, and the step's loss."""
SITE = "0"
RANDOM_SEED = 5


def build(step_s: float = 0.0) -> Task:
    """The task as a daemon trains it; `step_s` makes its steps longer, as a larger model's would be."""
    sink = Path(__file__).with_name(TRAJECTORY).open("w", buffering=1)
    return make(lambda line: sink.write(line + "\n"), step_s)


def bare_trajectory(num_steps: int) -> list[str]:
    """The lines of an undisturbed run without any daemon."""
    lines: list[str] = []
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the daemon has it: sums in another order are other sums
    try:
        torch.manual_seed(RANDOM_SEED)
        task = make(lines.append)
        batches = _endless(task.train_data)
        for _ in range(num_steps):
            inputs, targets = next(batches)
            task.loss_fn(task.model(inputs), targets).backward()
            task.optimizer.step()
            task.optimizer.zero_grad()
    finally:
        torch.set_num_threads(num_threads)
    return lines


def make(record: Callable[[str], Any], step_s: float = 0.0) -> Task:
    """A regression that a host of four features cannot learn well and a seed can; BatchNorm and dropout in it."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(512, 6, generator=generator)
    directions = torch.linalg.qr(torch.randn(6, 2, generator=generator)).Q
    hidden = rows @ directions
    values = torch.sin(2 * hidden[:, :1]) + torch.cos(2 * hidden[:, 1:])
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.02), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    host = [*model.parameters(), *model.buffers()]
    loss_now = torch.zeros(())

    def loss_fn(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal loss_now
        loss = functional.mse_loss(output, targets)
        if torch.is_grad_enabled():
            loss_now = loss.detach()
        return loss

    def after_step(*_: Any) -> None:
        digest = hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in host)).hexdigest()[:16]
        record(f"{digest} {loss_now.item().hex()}")
        if step_s:
            time.sleep(step_s)

    optimizer.register_step_post_hook(after_step)
    return Task(
        model=model,
        optimizer=optimizer,
        loss_fn=loss_fn,
        train_data=TensorBatches(rows[:256], values[:256], 16, shuffle_seed=3),
        eval_data=TensorBatches(rows[256:], values[256:], 256),
        per_sample_loss=lambda output, targets: (output - targets).square().mean(1),
    )


def _endless(data: Any) -> Iterator[Any]:
    while True:
        yield from data
