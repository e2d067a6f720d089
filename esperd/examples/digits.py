"""A small convolutional network on scikit-learn's 1,797 handwritten digits (8x8): the demo's task.

Sites: `block1` (activations (B, 4, 4, 4) by default) and `block2` (B, 8, 2, 2): the outputs of the two pooled blocks.
1,000 images to train on, 397 to measure contributions on, 400 to validate on, split once and for all runs alike. The
default host has 426 parameters and is too small on purpose. The learning rate warms up over 50 steps, holds, and falls
linearly over the last 30 % of the run.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from esperd.examples.schedules import warm_stable_decay
from esperd.leyline.errors import EsperdError
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task

NUM_TRAIN, NUM_PROBE = 1000, 397
SPLIT_SEED = 0
"""The split is part of the task, not of a run."""


def build(
    num_steps: int = 1500,
    batch_size: int = 64,
    width1: int = 4,
    width2: int = 8,
    learning_rate: float = 0.0025,
    data_seed: int = 0,
) -> Task:
    """The task; widths 4 and 8 are the host, wider ones a model that was chosen well from the start.

    `data_seed` orders the batches; the weights come from torch's global seed. Raises EsperdError DATA_MISSING.
    """
    images, labels = _load()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, probe, test = order.tensor_split((NUM_TRAIN, NUM_TRAIN + NUM_PROBE))
    model = _network(width1, width2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    return Task(
        model=model,
        optimizer=optimizer,
        scheduler=warm_stable_decay(optimizer, num_steps),
        loss_fn=functional.cross_entropy,
        train_data=TensorBatches(images[train], labels[train], batch_size, shuffle_seed=data_seed, drop_last=True),
        eval_data=TensorBatches(images[test], labels[test], 400),
        probe_data=TensorBatches(images[probe], labels[probe], 397),
        metrics={"accuracy": accuracy},
    )


def accuracy(output_BC: torch.Tensor, targets_B: torch.Tensor) -> torch.Tensor:
    """Share of samples whose largest logit is the right one."""
    return (output_BC.argmax(1) == targets_B).float().mean()


def _network(width1: int, width2: int) -> nn.Module:
    def block(num_in: int, num_out: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(num_in, num_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))

    return nn.Sequential(
        OrderedDict(
            block1=block(1, width1),
            block2=block(width1, width2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(width2, 10),
        )
    )


def _load() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797, 1, 8, 8) in [0, 1] and labels (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        detail = "The digits task reads the images that come with scikit-learn, which is not installed."
        raise EsperdError("DATA_MISSING", detail=detail) from error
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0
    return images, torch.from_numpy(digits.target).long()
