"""Values become plain JSON and come back exactly; what has a meaning of its own is refused with its path."""

import enum
import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.manifest import strict_json
from esperd.tolaria.state_plain import Decoder, Encoder, to_json


def round_trip(value: Any) -> Any:
    """Through JSON text, as a file would."""
    encoder = Encoder()
    text = b"".join(to_json({"section": encoder.encode("section", value)}))
    tensors = {name: t.detach().clone() for name, t in zip(encoder.names, encoder.tensors, strict=True)}
    return Decoder(tensors).decode(strict_json(text)["section"])


def same(one: Any, other: Any) -> bool:
    """Equal in value, type, order and bits, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


FLOATS = st.floats() | st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0])
TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers() | FLOATS | TEXT | st.binary(max_size=6)
KEYS = st.recursive(
    st.integers() | TEXT | st.booleans() | st.none() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=2).map(tuple),
    max_leaves=3,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(st.sampled_from(["$", "a", "items", "name"]), inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict)
        | st.builds(deque, st.lists(inner, max_size=3), st.none() | st.integers(3, 5))
        | st.sets(KEYS, max_size=3)
        | st.frozensets(KEYS, max_size=3)
        | st.dictionaries(KEYS, st.integers(), max_size=3).map(Counter)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(VALUES)
def test_any_value_survives_a_round_trip(value: Any) -> None:
    """Numbers to the last bit, NaN payloads and signs of zero, lone surrogates, keys of every kind, order of items."""
    assert same(round_trip(value), value)


@pytest.mark.parametrize(
    "value",
    [
        2**63 - 1,
        2**63,
        -(2**63) - 1,
        [2**63, 1],
        [-(2**63) - 1, 1],
        [True, 2**70],
        [10**5000],
        [0, 10**5000, None],
        [1e308, 1e308],
        [1e308, -math.inf],
        [math.nan, 1.0],
        [-0.0],
        (),
        {},
        {1: "a", "1": "b", (1, ("x", None)): "c"},
        {"$": "tensor", "name": "x"},
        deque([1, 2], maxlen=2),
        random.Random(3).getstate(),
        [0.1] * 63,
        [0.1] * 64,
        [0.1] * 65,
        [math.inf] * 129,
        {"a": {"b": {"c": {"d": {"e": {}, "f": []}, "g": [[]] * 200}}}},
        {str(n): n for n in range(1000)},
        torch.float32,
        torch.bfloat16,
        torch.device("cpu"),
        torch.device("cuda", 1),
        torch.Size([2, 3]),
    ],
)
def test_these_values_survive_a_round_trip(value: Any) -> None:
    """Ends of ranges, mixtures, and what torch itself puts into states."""
    assert same(round_trip(value), value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.arange(10)[::-2],
        np.array(5.5),
        np.zeros((0, 3), np.float32),
        np.array([1, 2], ">i4"),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.frombuffer(b"\1\2\3\4", np.uint32),
        np.array([1.5, np.nan], np.float16),
    ],
)
def test_arrays_survive_a_round_trip(array: "np.ndarray[Any, Any]") -> None:
    """Any strides, byte order, 0-dim and empty ones, read-only ones; the result is an array of its own."""
    back = round_trip([array])[0]
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert back.flags.writeable


@pytest.mark.parametrize("scalar", [np.float64(0.1), np.float32(0.1), np.int64(-3), np.uint8(200), np.bool_(True)])
def test_array_scalars_keep_their_type(scalar: Any) -> None:
    """A NumPy number is not a Python number."""
    back = round_trip(scalar)
    assert type(back) is type(scalar)
    assert back == scalar


def test_the_versions_of_a_state_dict_are_kept() -> None:
    """torch notes them in an attribute of the ordered dict; loading uses them."""
    state = torch.nn.BatchNorm1d(3).state_dict()
    back = round_trip(state)
    assert type(back) is OrderedDict
    assert list(back) == list(state)
    assert back._metadata == state._metadata  # type: ignore[attr-defined]


class Colour(enum.IntEnum):
    RED = 1


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, Colour.RED]}, "section/a/1"),
        ({"a": {"b": object()}}, "section/a/b"),
        ([1, (2, {3: lambda: 0})], "section/1/1/3"),
        (Pair(1, 2), "section"),
        (defaultdict(list), "section"),
        (Fraction(1, 2), "section"),
        ({"f": 1j}, "section/f"),
        ({Colour.RED: 1}, "section"),
        ({b"x": 1}, "section"),
        (np.array([object()]), "section"),
        (np.array(["text"]), "section"),
        (torch.zeros(3, 3).to_sparse(), "section"),
        (torch.zeros(3, device="meta"), "section"),
        (torch.zeros(3, dtype=torch.complex128), "section"),
        (range(3), "section"),
        (torch.nn.Linear(1, 1), "section"),
    ],
)
def test_what_cannot_be_saved_is_named_by_its_path(value: Any, path: str) -> None:
    """Nothing is flattened or dropped: CHECKPOINT_UNSAVABLE says where it is and what it is."""
    with pytest.raises(EsperdError) as caught:
        Encoder().encode("section", value)
    assert caught.value.reason == "CHECKPOINT_UNSAVABLE"
    assert caught.value.metadata["path"] == path


def test_a_long_text_comes_in_pieces_that_are_one_json() -> None:
    """Sections one by one, and none of them in one piece when it is long; no section is an empty object."""
    plain = {"a": {str(n): [0.5] * 100 for n in range(1000)}, "b": [], "c": {}}
    pieces = list(to_json(plain))
    assert len(pieces) > 10
    assert strict_json(b"".join(pieces)) == plain
    assert max(map(len, pieces)) < 100_000
    assert strict_json(b"".join(to_json({}))) == {}


def test_what_holds_itself_is_refused() -> None:
    """A cycle ends in an error, not in the interpreter's."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(EsperdError, match="holds itself"):
        Encoder().encode("section", cycle)


def test_tensors_get_unique_names_from_their_paths() -> None:
    """Also where keys of different types read the same, or hold what is no text."""
    encoder = Encoder()
    a, b, c, d = (torch.full((1,), float(n)) for n in range(4))
    encoder.encode("s", {1: a, "1": b, "x/y": c, "x": {"y": d}, "\ud800": torch.zeros(1), "ä": torch.zeros(1)})
    assert encoder.names == ["s/1", "s/1~2", "s/x/y", "s/x/y~2", "s/\\ud800", "s/ä"]
    assert encoder.tensors[:4] == [a, b, c, d]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_channels_last_comes_back_as_such(memory_format: torch.memory_format) -> None:
    """The values are stored in order; the strides are made again."""
    tensor = torch.arange(120.0).reshape(2, 3, 4, 5).contiguous(memory_format=memory_format)
    encoder = Encoder()
    plain = encoder.encode("s", tensor)
    back = Decoder({"s": tensor.contiguous()}).decode(plain)
    assert torch.equal(back, tensor)
    assert back.stride() == tensor.stride()
