"""Blueprints for plain rows of features: small modules that map an activation (B, D) to a delta of the same shape.

Runs on the training thread. Every one starts at exactly zero.
"""

from collections.abc import Mapping

from torch import nn

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Bounds, Shape
from esperd.kasmina.blueprints.layers import FeedForward, zeroed
from esperd.leyline.vocabulary import BlueprintTier

ROWS = frozenset({2})


def _residual_linear(site_shape: Shape, _parameters: Mapping[str, float]) -> nn.Module:
    width = site_shape[1]
    return zeroed(nn.Linear(width, width))


def _residual_mlp(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    width = site_shape[1]
    return FeedForward(width, int(parameters["expansion"]) * width)


RESIDUAL_LINEAR = BlueprintDescriptor(
    "residual_linear",
    "Residual linear map",
    "One full linear map.",
    BlueprintTier.SAFE,
    0.1,
    ROWS,
    _residual_linear,
)
RESIDUAL_MLP = BlueprintDescriptor(
    "residual_mlp",
    "Residual perceptron",
    "LayerNorm and a two-layer perceptron around a wider hidden layer.",
    BlueprintTier.SAFE,
    0.2,
    ROWS,
    _residual_mlp,
    {"expansion": Bounds(1, 16, 4, integer=True)},
)

ALL = (RESIDUAL_LINEAR, RESIDUAL_MLP)
