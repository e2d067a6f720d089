"""Blueprints for sequences: small modules that map an activation (B, T, D) to a delta of the same shape.

Runs on the training thread. Every one starts at exactly zero. Attention is always causal: a seed that let position t
see t + 1 would cheat a language model's loss.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Bounds, Shape
from esperd.kasmina.blueprints.layers import CausalAttention, FeedForward, LearnedScale, zeroed
from esperd.leyline.vocabulary import BlueprintTier

SEQUENCES = frozenset({3})
MIN_HIDDEN = 4
BLOCK_EXPANSION = 4


class GatedFeedForward(nn.Module):
    """`W3 (silu(W1 n) * W2 n)` with `n` the layer-normalised input (SwiGLU, Shazeer 2020).

    Shapes: (B, T, D) to (B, T, D).
    """

    def __init__(self, width: int, num_hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate_and_value = nn.Linear(width, 2 * num_hidden)
        self.out = zeroed(nn.Linear(num_hidden, width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The delta."""
        gate, value = self.gate_and_value(self.norm(x_BTD)).chunk(2, dim=-1)
        out: Tensor = self.out(nn.functional.silu(gate) * value)
        return out


class TransformerStack(nn.Module):
    """What a stack of pre-norm transformer layers adds to its input; each layer starts as the identity.

    Shapes: (B, T, D) to (B, T, D).
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for _ in range(num_layers):
            self.parts.append(CausalAttention(width))
            self.parts.append(FeedForward(width, BLOCK_EXPANSION * width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The delta, summed up part by part: exact where `stack(x) - x` would cancel digits."""
        delta_BTD = torch.zeros_like(x_BTD)
        for part in self.parts:
            delta_BTD = delta_BTD + part(x_BTD + delta_BTD)
        return delta_BTD


def _layer_scale_norm(site_shape: Shape, _parameters: Mapping[str, float]) -> nn.Module:
    width = site_shape[2]
    return nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), LearnedScale(width))


def _lora(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    width, rank = site_shape[2], int(parameters["rank"])
    return nn.Sequential(nn.Linear(width, rank, bias=False), zeroed(nn.Linear(rank, width, bias=False)))


def _bottleneck_mlp(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    width = site_shape[2]
    return FeedForward(width, max(MIN_HIDDEN, width // int(parameters["reduction"])))


def _gated_ffn(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    width = site_shape[2]
    return GatedFeedForward(width, round(parameters["expansion"] * width))


def _causal_attention(site_shape: Shape, _parameters: Mapping[str, float]) -> nn.Module:
    return CausalAttention(site_shape[2])


def _transformer_block(site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    return TransformerStack(site_shape[2], int(parameters["num_layers"]))


LAYER_SCALE_NORM = BlueprintDescriptor(
    "layer_scale_norm",
    "Scaled normalised shortcut",
    "LayerNorm times one learned number for each feature.",
    BlueprintTier.SAFE,
    0.1,
    SEQUENCES,
    _layer_scale_norm,
)
LORA = BlueprintDescriptor(
    "lora",
    "Low-rank linear map",
    "A linear map of low rank, as in LoRA (Hu et al. 2021).",
    BlueprintTier.SAFE,
    0.2,
    SEQUENCES,
    _lora,
    {"rank": Bounds(1, 256, 8, integer=True)},
)
BOTTLENECK_MLP = BlueprintDescriptor(
    "bottleneck_mlp",
    "Bottleneck perceptron",
    "LayerNorm and a two-layer perceptron through a narrow hidden layer.",
    BlueprintTier.SAFE,
    0.2,
    SEQUENCES,
    _bottleneck_mlp,
    {"reduction": Bounds(1, 16, 4, integer=True)},
)
GATED_FFN = BlueprintDescriptor(
    "gated_ffn",
    "Gated feed-forward",
    "LayerNorm and a SwiGLU feed-forward layer.",
    BlueprintTier.SAFE,
    0.3,
    SEQUENCES,
    _gated_ffn,
    {"expansion": Bounds(1.0, 8.0, 2.0)},
)
CAUSAL_ATTENTION = BlueprintDescriptor(
    "causal_attention",
    "Causal attention",
    "LayerNorm and multi-head attention to earlier positions.",
    BlueprintTier.SAFE,
    0.3,
    SEQUENCES,
    _causal_attention,
)
TRANSFORMER_BLOCK = BlueprintDescriptor(
    "transformer_block",
    "Transformer layers",
    "Whole pre-norm transformer layers, causal attention and perceptron each; depth for a language model.",
    BlueprintTier.SAFE,
    0.4,
    SEQUENCES,
    _transformer_block,
    {"num_layers": Bounds(1, 12, 1, integer=True)},
)

ALL = (LAYER_SCALE_NORM, LORA, BOTTLENECK_MLP, GATED_FFN, CAUSAL_ATTENTION, TRANSFORMER_BLOCK)
