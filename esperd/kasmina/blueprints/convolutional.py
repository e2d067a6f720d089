"""Blueprints for images: small modules that map an activation (B, C, H, W) to a delta of the same shape.

Runs on the training thread. Every one starts at exactly zero and keeps the spatial size. Measured on the digits task
(design research, growth science 3a): the residual block of four times the width gains most, then the pointwise and
the depthwise one; squeeze-and-excitation hardly anything.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Bounds, Shape
from esperd.kasmina.blueprints.layers import group_norm, zeroed
from esperd.leyline.vocabulary import BlueprintTier

IMAGES = frozenset({4})
MIN_SQUEEZED = 4


class SqueezeExcite(nn.Module):
    """`x * tanh(W2 relu(W1 mean(x)))`: each channel turned up or down by what the whole image looks like.

    The usual sigmoid gate in a form that starts at zero (Hu et al. 2018). Shapes: (B, C, H, W) to the same.
    """

    def __init__(self, num_channels: int, reduction: int) -> None:
        super().__init__()
        num_hidden = max(MIN_SQUEEZED, num_channels // reduction)
        self.squeeze = nn.Linear(num_channels, num_hidden)
        self.excite = zeroed(nn.Linear(num_hidden, num_channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The delta."""
        pooled_BC = x_BCHW.mean(dim=(2, 3))
        factor_BC = torch.tanh(self.excite(torch.relu(self.squeeze(pooled_BC))))
        return x_BCHW * factor_BC[:, :, None, None]


def _norm(site_shape: Shape, _parameters: Mapping[str, float]) -> nn.Module:
    """GroupNorm whose learned scale and shift start at zero."""
    norm = group_norm(site_shape[1])
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    return norm


def _squeeze_excite(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    return SqueezeExcite(site_shape[1], int(parameters["reduction"]))


def _conv1x1(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    num_channels = site_shape[1]
    num_hidden = int(parameters["expansion"]) * num_channels
    return nn.Sequential(
        nn.Conv2d(num_channels, num_hidden, 1),
        group_norm(num_hidden),
        nn.GELU(),
        zeroed(nn.Conv2d(num_hidden, num_channels, 1)),
    )


def _depthwise(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    num_channels, radius = site_shape[1], int(parameters["radius"])
    return nn.Sequential(
        nn.Conv2d(num_channels, num_channels, 2 * radius + 1, padding=radius, groups=num_channels),
        group_norm(num_channels),
        nn.GELU(),
        zeroed(nn.Conv2d(num_channels, num_channels, 1)),
    )


def _conv_light(site_shape: Shape, _parameters: Mapping[str, float]) -> nn.Module:
    num_channels = site_shape[1]
    return nn.Sequential(
        group_norm(num_channels),
        nn.GELU(),
        zeroed(nn.Conv2d(num_channels, num_channels, 3, padding=1)),
    )


def _residual_conv(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    num_channels = site_shape[1]
    num_hidden = int(parameters["expansion"]) * num_channels
    return nn.Sequential(
        nn.Conv2d(num_channels, num_hidden, 3, padding=1),
        group_norm(num_hidden),
        nn.GELU(),
        zeroed(nn.Conv2d(num_hidden, num_channels, 3, padding=1)),
    )


NORM = BlueprintDescriptor(
    "norm",
    "Normalised shortcut",
    "GroupNorm with a learned scale and shift for each channel.",
    BlueprintTier.SAFE,
    0.1,
    IMAGES,
    _norm,
)
SQUEEZE_EXCITE = BlueprintDescriptor(
    "squeeze_excite",
    "Squeeze and excite",
    "Turns whole channels up or down by the image's pooled features.",
    BlueprintTier.SAFE,
    0.2,
    IMAGES,
    _squeeze_excite,
    {"reduction": Bounds(1, 16, 4, integer=True)},
)
CONV1X1 = BlueprintDescriptor(
    "conv1x1",
    "Pointwise perceptron",
    "Two 1x1 convolutions around a wider hidden layer.",
    BlueprintTier.SAFE,
    0.2,
    IMAGES,
    _conv1x1,
    {"expansion": Bounds(1, 8, 4, integer=True)},
)
DEPTHWISE = BlueprintDescriptor(
    "depthwise",
    "Depthwise separable convolution",
    "A depthwise convolution of width 2 * radius + 1, then a 1x1 convolution.",
    BlueprintTier.SAFE,
    0.2,
    IMAGES,
    _depthwise,
    {"radius": Bounds(1, 3, 1, integer=True)},
)
CONV_LIGHT = BlueprintDescriptor(
    "conv_light",
    "Light convolution",
    "GroupNorm, GELU and one 3x3 convolution.",
    BlueprintTier.SAFE,
    0.2,
    IMAGES,
    _conv_light,
)
RESIDUAL_CONV = BlueprintDescriptor(
    "residual_conv",
    "Residual convolution block",
    "Two 3x3 convolutions around a wider hidden layer; the strongest of the image blueprints.",
    BlueprintTier.SAFE,
    0.3,
    IMAGES,
    _residual_conv,
    {"expansion": Bounds(1, 8, 4, integer=True)},
)

ALL = (NORM, SQUEEZE_EXCITE, CONV1X1, DEPTHWISE, CONV_LIGHT, RESIDUAL_CONV)
