"""What the daemons of the crash tests train: a thousand steps a second, with everything in it that has a state.

Copied beside a daemon's configuration; imports nothing of the tests. BatchNorm keeps statistics, dropout and the
shuffled data draw random numbers, AdamW keeps moments, and the scheduler moves the learning rate.
"""

import time

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task


class Noisy(TensorDataset):
    """Samples that are a little different every time they are fetched, as augmented ones are."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        rows, values = super().__getitem__(index)
        return rows + 0.01 * torch.randn_like(rows), values


def build(loader: bool = False, num_workers: int = 0, batch_size: int = 16, step_s: float = 0.0) -> Task:
    """A regression that a narrow host cannot learn well and a seed can.

    `loader` feeds it by a shuffling DataLoader, with `num_workers` processes that add noise of their own to what they
    fetch; `step_s` makes its steps longer, as a larger model's would be.
    """
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(512, 6, generator=generator)
    directions = torch.linalg.qr(torch.randn(6, 2, generator=generator)).Q
    hidden = rows @ directions
    values = torch.sin(2 * hidden[:, :1]) + torch.cos(2 * hidden[:, 1:])
    model = nn.Sequential(
        nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.02), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    train: object = TensorBatches(rows[:256], values[:256], batch_size, shuffle_seed=3)
    if loader:
        train = DataLoader(
            Noisy(rows[:256], values[:256]),
            batch_size=batch_size,
            shuffle=True,
            num_workers=num_workers,
            multiprocessing_context="forkserver" if num_workers else None,
        )
    if step_s:
        optimizer.register_step_post_hook(lambda *_: time.sleep(step_s))
    return Task(
        model=model,
        optimizer=optimizer,
        loss_fn=functional.mse_loss,
        train_data=train,  # type: ignore[arg-type]  # either can be iterated over
        eval_data=TensorBatches(rows[256:], values[256:], 256),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000),
        per_sample_loss=lambda output, targets: (output - targets).square().mean(1),
    )
