"""The head of a safetensors file: the format's own library agrees with ours, and hostile heads are refused."""

import json
from collections.abc import Mapping

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esperd.tolaria.safetensors_header import DTYPES, Place, build, parse

LIBRARY_DTYPES = [dtype for dtype in DTYPES if dtype is not torch.complex64]
"""Older releases of the library do not know complex numbers."""


def file_of(head: object, data: bytes = b"") -> memoryview:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return memoryview(len(text).to_bytes(8, "little") + text + data)


def entry(dtype: str, shape: list[int], start: int, end: int) -> Mapping[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def places_of(dtypes: list[torch.dtype], shapes: list[tuple[int, ...]]) -> list[Place]:
    places: list[Place] = []
    pairs = sorted(zip(dtypes, shapes, strict=False), key=lambda pair: -pair[0].itemsize)
    for number, (dtype, shape) in enumerate(pairs):
        places.append(Place(f"model/{number}", dtype, shape, places[-1].end if places else 0))
    return places


DTYPE = st.sampled_from(LIBRARY_DTYPES)
SHAPE = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@settings(deadline=None)
@given(st.lists(DTYPE, max_size=6), st.lists(SHAPE, min_size=6, max_size=6))
def test_the_library_reads_what_we_build_and_we_parse_it_back(
    dtypes: list[torch.dtype], shapes: list[tuple[int, ...]]
) -> None:
    """Every dtype and shape, 0-dim and empty ones included; tensors begin on a multiple of 8."""
    places = places_of(dtypes, shapes)
    head = build(places)
    data = head + bytes(places[-1].end if places else 0)
    loaded = safetensors.torch.load(data)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in loaded.items()} == {
        place.name: (place.dtype, place.shape) for place in places
    }
    begin, parsed = parse(memoryview(data))
    assert begin == len(head)
    assert begin % 8 == 0
    assert {place.name: place for place in parsed} == {place.name: place for place in places}


def test_we_parse_what_the_library_writes() -> None:
    """A file of the library has the same places."""
    tensors = {"a": torch.ones(3), "b": torch.zeros(2, 2, dtype=torch.bfloat16), "c": torch.tensor(7)}
    data = safetensors.torch.save(tensors)
    begin, places = parse(memoryview(data))
    for place in places:
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)[begin + place.start : begin + place.end]
        assert torch.equal(flat.clone().view(place.dtype).view(place.shape), tensors[place.name])
    assert len(places) == 3


@pytest.mark.parametrize(
    "data",
    [
        memoryview(b""),
        memoryview(b"\x02\0\0\0\0\0\0"),
        memoryview(b"\xff" * 8 + b"{}"),
        memoryview((200_000_000).to_bytes(8, "little") + b"{}"),
        file_of(b"[]"),
        file_of(b"nope"),
        file_of(b'{"a": 1}'),
        file_of(b'{"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}, "a": 1}', b"\0"),
        file_of({"a": entry("U8", [2], 0, 1)}, b"\0"),
        file_of({"a": entry("U8", [1], 1, 2)}, b"\0\0"),
        file_of({"a": entry("U8", [1], 0, 1)}, b"\0\0"),
        file_of({"a": entry("U8", [2], 0, 2)}, b"\0"),
        file_of({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"\0\0\0"),
        file_of({"a": entry("U8", [-1], 0, 1)}, b"\0"),
        file_of({"a": entry("U8", [1 << 62, 1 << 62], 0, 1)}, b"\0"),
        file_of({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"\0"),
        file_of({"a": {"dtype": "U8", "shape": [1], "data_offsets": []}}, b"\0"),
        file_of({"a": {"dtype": ["U8"], "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        file_of({"a": {"dtype": "U9", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        file_of({"a": {"dtype": "U8", "shape": [1]}}, b"\0"),
        file_of({"a": entry("U8", [1], 0, 1), "b": entry("F64", [1], 1, 9)}, bytes(9)),
    ],
)
def test_hostile_heads_are_refused(data: memoryview) -> None:
    """Lengths that lie, gaps, overlaps, sizes that overflow, unknown types, misplaced tensors."""
    with pytest.raises(ValueError):
        parse(data)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_random_heads_are_refused_or_consistent(text: bytes) -> None:
    """Nothing but ValueError comes out."""
    try:
        _, places = parse(file_of(text))
    except ValueError:
        return
    assert all(place.end == place.start for place in places)
