"""The head of a safetensors file: written from names, types and shapes, and read from files that nobody vouches for.

Pure; no files, no threads. The format: 8 bytes little-endian length of the head, the head as JSON, then the tensors
end to end in the order of their offsets (https://github.com/huggingface/safetensors, "Format").
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from esperd.oona.checkpoints.manifest import strict_json

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Every dtype that can be saved, with its word in the format."""
_BY_WORD = {word: dtype for dtype, word in DTYPES.items()}
_LENGTH_BYTES = 8
_MAX_HEAD_BYTES = 100_000_000
_ALIGNMENT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Place:
    """One tensor of a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Offset from the first byte of the first tensor."""

    @property
    def end(self) -> int:
        """One past its last byte."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def build(places: Sequence[Place]) -> bytes:
    """Everything before the first tensor, padded so that it begins on a multiple of 8."""
    head: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for place in places:
        offsets = [place.start, place.end]
        head[place.name] = {"dtype": DTYPES[place.dtype], "shape": list(place.shape), "data_offsets": offsets}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def parse(data: memoryview) -> tuple[int, list[Place]]:
    """Where the first tensor begins, and all of them in order; they fill the file without a gap or an overlap.

    Raises:
        ValueError: `data` is no such file.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if len(data) < _LENGTH_BYTES or length > _MAX_HEAD_BYTES or begin > len(data):
        raise ValueError("its head is longer than the file")
    head = strict_json(bytes(data[_LENGTH_BYTES:begin]))
    if type(head) is not dict:
        raise ValueError("its head is no object")
    head.pop("__metadata__", None)
    places = sorted((_place(name, fields) for name, fields in head.items()), key=lambda place: (place.start, place.end))
    end = 0
    for place in places:
        if place.start != end or (begin + place.start) % place.dtype.itemsize:
            raise ValueError(f"{place.name} is not where it should be")
        end = place.end
    if begin + end != len(data):
        raise ValueError("its tensors do not fill it")
    return begin, places


def _place(name: str, fields: object) -> Place:
    if type(fields) is not dict or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is not described")
    word, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if type(word) is not str or word not in _BY_WORD or not _are_counts(shape) or not _are_counts(offsets):
        raise ValueError(f"{name} is not described")
    place = Place(name, _BY_WORD[word], tuple(shape), offsets[0] if offsets else 0)
    if offsets != [place.start, place.end]:
        raise ValueError(f"{name} has another size than its shape")
    return place


def _are_counts(value: object) -> bool:
    return type(value) is list and all(type(item) is int and item >= 0 for item in value)
