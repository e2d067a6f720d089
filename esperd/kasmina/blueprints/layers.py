"""Small layers that several blueprints share: zero-initialised last layers, norms that need no batch, attention.

Runs on the training thread. Every last layer starts at zero, so that a new seed's delta is exactly 0 and the model
with it computes what it computed without it. Never BatchNorm: its running statistics would see blended data.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

MIN_CHANNELS_PER_GROUP = 4
"""One channel alone in a group of one pixel would be normalised to nothing."""
MIN_HEAD_DIM = 8


def zeroed(layer: Layer) -> Layer:
    """The layer with weight and bias set to zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def group_norm(num_channels: int) -> nn.GroupNorm:
    """GroupNorm with the most groups of {8, 4, 2} that divide the channels into fours or more, else one group."""
    for num_groups in (8, 4, 2):
        if num_channels % num_groups == 0 and num_channels // num_groups >= MIN_CHANNELS_PER_GROUP:
            return nn.GroupNorm(num_groups, num_channels)
    return nn.GroupNorm(1, num_channels)


def num_heads_for(width: int) -> int:
    """The largest of {8, 4, 2, 1} that divides the width into heads of at least 8; one head below that."""
    for num_heads in (8, 4, 2):
        if width % num_heads == 0 and width // num_heads >= MIN_HEAD_DIM:
            return num_heads
    return 1


class CausalAttention(nn.Module):
    """Pre-norm multi-head attention in which position t sees positions up to t only; output starts at zero.

    Shapes: (B, T, D) to (B, T, D).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = num_heads_for(width)
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The delta."""
        B, T, D = x_BTD.shape
        split = self.query_key_value(self.norm(x_BTD)).view(B, T, 3, self.num_heads, D // self.num_heads)
        query_BHTK, key_BHTK, value_BHTK = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(B, T, D))
        return out


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron with GELU over the last dimension; output starts at zero.

    Shapes: (..., D) to (..., D).
    """

    def __init__(self, width: int, num_hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, num_hidden)
        self.out = zeroed(nn.Linear(num_hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """The delta."""
        out: Tensor = self.out(nn.functional.gelu(self.hidden(self.norm(x))))
        return out


class LearnedScale(nn.Module):
    """Multiply by one learned number for each entry of the last dimension, 0 at the start.

    Shapes: (..., D) to (..., D).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """The scaled values."""
        return x * self.scale
