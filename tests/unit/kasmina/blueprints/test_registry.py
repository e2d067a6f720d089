import dataclasses

import pytest
import torch

from esperd.kasmina.blueprints.registry import (
    BlueprintRegistry,
    DuplicateBlueprintError,
    UnknownBlueprintError,
    standard_registry,
)
from esperd.leyline.vocabulary import BlueprintTier

IMAGES = {"norm", "squeeze_excite", "conv1x1", "depthwise", "conv_light", "residual_conv"}
SEQUENCES = {"layer_scale_norm", "lora", "bottleneck_mlp", "gated_ffn", "causal_attention", "transformer_block"}
ROWS = {"residual_linear", "residual_mlp"}


@pytest.mark.parametrize(
    ("shape", "expected"), [((2, 8, 4, 4), IMAGES), ((2, 8, 16), SEQUENCES), ((2, 16), ROWS), ((2,), set())]
)
def test_offers_what_fits_the_site(shape: tuple[int, ...], expected: set[str]) -> None:
    """Images, sequences and rows each get their own blueprints; integer activations get none."""
    registry = standard_registry()
    assert {offer.blueprint_id for offer in registry.admissible(shape, torch.float32)} == expected
    assert registry.admissible(shape, torch.int64) == ()


def test_what_comes_with_the_daemon_is_safe() -> None:
    """All standard blueprints are of the SAFE tier, with a risk between 0 and 1, a name and a description."""
    for blueprint in standard_registry():
        assert blueprint.tier is BlueprintTier.SAFE
        assert 0.0 <= blueprint.risk <= 1.0
        assert blueprint.name
        assert blueprint.description


def test_an_unknown_id_is_refused_with_those_there_are() -> None:
    """The error helps to find the right id."""
    with pytest.raises(UnknownBlueprintError, match=r"'lorra'; known: .*lora"):
        standard_registry().get("lorra")
    with pytest.raises(UnknownBlueprintError, match="known: none"):
        BlueprintRegistry().get("lora")


def test_more_can_be_registered_in_one_registry_only() -> None:
    """A registered blueprint is offered by its registry; a second registry knows nothing of it."""
    registry, other = standard_registry(), standard_registry()
    mine = dataclasses.replace(registry.get("lora"), blueprint_id="mine", tier=BlueprintTier.HIGH_RISK)
    registry.register(mine)
    assert registry.get("mine") is mine
    assert mine in registry.admissible((1, 2, 3), torch.float32)
    assert len(registry) == len(other) + 1
    assert "mine" in registry
    assert "mine" not in other


def test_an_id_is_taken_once() -> None:
    """A second blueprint of the same id is refused; the first stays."""
    registry = standard_registry()
    lora = registry.get("lora")
    with pytest.raises(DuplicateBlueprintError, match="'lora'"):
        registry.register(dataclasses.replace(lora, name="Another"))
    assert registry.get("lora") is lora
