"""A blueprint with a buffer that each forward pass changes; no standard one has any."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Shape
from esperd.leyline.vocabulary import BlueprintTier


class Averaging(nn.Module):
    """`W (x - average)`, with a running average of the activation. Shapes: (B, D) to (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.frozen = nn.Parameter(torch.ones(width), requires_grad=False)
        self.average: Tensor
        self.register_buffer("average", torch.zeros(width))

    def forward(self, x_BD: Tensor) -> Tensor:
        """The delta."""
        with torch.no_grad():
            self.average.mul_(0.75).add_(x_BD.mean(0), alpha=0.25)
        out: Tensor = self.linear(x_BD - self.average) * self.frozen
        return out


def _averaging(site_shape: Shape, _parameters: Mapping[str, float]) -> nn.Module:
    return Averaging(site_shape[1])


AVERAGING = BlueprintDescriptor(
    "averaging", "Average", "Has a buffer.", BlueprintTier.EXPERIMENTAL, 0.5, frozenset({2}), _averaging
)
