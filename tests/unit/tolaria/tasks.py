"""Task functions that go wrong, each in its own way."""

import sys
from typing import Any

import torch
from torch import nn

from esperd.tolaria.task import Task
from tests.unit.tolaria.harness import make_task


class Raising(nn.Module):
    """A layer that cannot be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no way forward")


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no way back")


class RaisingBackward(Raising):
    """A layer whose backward fails."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _Backward.apply(self.layer(x))
        return out


def raising_in_forward() -> Task:
    return make_task(model=Raising())


def raising_in_backward() -> Task:
    return make_task(model=RaisingBackward(), step_flops=1.0)


class Leaving(Raising):
    """A layer that ends the process when it is trained, not when it is only looked at."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            sys.exit(3)
        out: torch.Tensor = self.layer(x)
        return out


def leaving_in_a_step() -> Task:
    return make_task(model=Leaving(), step_flops=1.0)
