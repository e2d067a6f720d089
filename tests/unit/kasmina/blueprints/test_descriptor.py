import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from esperd.kasmina.blueprints.descriptor import (
    BlueprintDescriptor,
    BlueprintParameterError,
    Bounds,
    SiteNotAdmissibleError,
)
from esperd.leyline.vocabulary import BlueprintTier


def _descriptor() -> BlueprintDescriptor:
    return BlueprintDescriptor(
        "widen",
        "Widen",
        "For tests.",
        BlueprintTier.EXPERIMENTAL,
        0.5,
        frozenset({2, 3}),
        lambda shape, parameters: nn.Linear(shape[-1], int(parameters["width"])),
        {"width": Bounds(1, 8, 4, integer=True), "slope": Bounds(0.0, 1.0, 0.5)},
    )


def test_defaults_fill_what_is_not_given() -> None:
    """The resolved parameters are complete, whatever was given."""
    assert _descriptor().resolve({}) == {"width": 4.0, "slope": 0.5}
    assert _descriptor().resolve({"width": 8}) == {"width": 8.0, "slope": 0.5}


@pytest.mark.parametrize("value", [0, 9, 2.5, math.nan, math.inf, -1])
def test_a_value_out_of_bounds_is_refused_with_the_range(value: float) -> None:
    """Never clamped, never rounded: refused, naming parameter, value and range."""
    with pytest.raises(BlueprintParameterError, match=r"width of blueprint widen .* whole number from 1 to 8"):
        _descriptor().build((2, 4), {"width": value})


def test_an_unknown_parameter_is_refused_with_those_there_are() -> None:
    """A misspelt parameter is an error, not ignored."""
    with pytest.raises(BlueprintParameterError, match="no parameter 'widht'; it has: slope, width"):
        _descriptor().build((2, 4), {"widht": 2})


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_bounds_admit_exactly_their_range(value: float) -> None:
    """Both ends are in, nothing else outside."""
    assert Bounds(-1.0, 2.0, 0.0).admits(value) == (-1.0 <= value <= 2.0)


def test_a_default_out_of_bounds_is_a_mistake() -> None:
    """A blueprint cannot be declared with a default that it would refuse."""
    with pytest.raises(BlueprintParameterError, match="default"):
        Bounds(0, 1, 2)


def test_admits_by_rank_and_floating_dtype() -> None:
    """Only its numbers of dimensions, only floating-point activations, nothing empty."""
    blueprint = _descriptor()
    assert blueprint.admits((2, 4), torch.float32)
    assert blueprint.admits((2, 3, 4), torch.bfloat16)
    assert not blueprint.admits((2, 3, 4, 5), torch.float32)
    assert not blueprint.admits((2, 4), torch.int64)
    assert not blueprint.admits((2, 4), torch.complex64)
    assert not blueprint.admits((2, 0), torch.float32)


def test_building_at_a_wrong_shape_is_refused() -> None:
    """The error says how many dimensions it needs."""
    with pytest.raises(SiteNotAdmissibleError, match="2 or 3 dimensions"):
        _descriptor().build((2, 3, 4, 5))
