"""A run's state as plain JSON values and a list of tensors, and back: every value exactly as it was, nothing executed.

Training thread; reading also on the checkpoint reader's. What JSON has no word for becomes an object with the key `$`
that names its kind. Types are matched exactly, so that a subclass with meaning of its own is refused, not flattened.
"""

import base64
import json
import math
import struct
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from esperd.leyline.errors import EsperdError
from esperd.tolaria.safetensors_header import DTYPES

_KIND = "$"
_SAME = frozenset({str, bool, type(None)})
_SAME_OR_INT = _SAME | {int}
_FLOATS = frozenset({float})
_KEYS = frozenset({str, bool, int, float, type(None)})
_MAX_INT = 2**63
_TENSORS = frozenset({torch.Tensor, torch.nn.Parameter, torch.nn.Buffer})
_ARRAY_KINDS = "biufc"
_SPLIT_DEPTH = 4
_ITEMS_A_PART = 64
_PARTS_A_PIECE = 256
_MEMORY_FORMATS = {"channels_last": torch.channels_last, "channels_last_3d": torch.channels_last_3d}
_DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


class Encoder:
    """One pass over a tree; the tensors it met are in `tensors`, not copied, their unique paths in `names`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tensors: list[torch.Tensor] = []
        self._taken: set[str] = set()
        self._path: list[object] = []
        self._handlers: dict[type, Callable[[Any], Any]] = {
            int: self._int,
            float: self._float,
            list: self._list,
            tuple: lambda value: {_KIND: "tuple", "items": self._list(value)},
            set: lambda value: {_KIND: "set", "items": self._list(list(value))},
            frozenset: lambda value: {_KIND: "frozenset", "items": self._list(list(value))},
            deque: lambda value: {_KIND: "deque", "items": self._list(list(value)), "maxlen": value.maxlen},
            dict: self._dict,
            OrderedDict: self._ordered,
            Counter: lambda value: {_KIND: "counter", "items": self._pairs(value)},
            bytes: lambda value: {_KIND: "bytes", "base64": base64.b64encode(value).decode()},
            np.ndarray: self._array,
            torch.dtype: lambda value: {_KIND: "dtype", "name": str(value).removeprefix("torch.")},
            torch.device: lambda value: {_KIND: "device", "name": str(value)},
            torch.Size: lambda value: {_KIND: "size", "items": list(value)},
            **dict.fromkeys(_TENSORS, self._tensor),
        }

    def encode(self, section: str, value: Any) -> Any:
        """The plain form of one section.

        Raises:
            EsperdError: CHECKPOINT_UNSAVABLE, with the path of what cannot be saved.
        """
        self._path = [section]
        try:
            return self._encode(value)
        except RecursionError:
            raise EsperdError("CHECKPOINT_UNSAVABLE", path=section, detail="it holds itself, or is too deep") from None

    def _encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in _SAME:
            return value
        handler = self._handlers.get(kind)
        if handler is not None:
            return handler(value)
        if isinstance(value, np.generic):
            return self._array(np.asarray(value)) | {_KIND: "scalar"}
        raise self._unsavable(f"it is a {kind.__module__}.{kind.__qualname__}")

    def _at(self, key: object, value: Any) -> Any:
        self._path.append(key)
        plain = self._encode(value)
        self._path.pop()
        return plain

    def _int(self, value: int) -> Any:
        return value if -_MAX_INT <= value < _MAX_INT else {_KIND: "int", "hex": hex(value)}

    def _float(self, value: float) -> Any:
        return value if math.isfinite(value) else {_KIND: "float", "bits": struct.pack(">d", value).hex()}

    def _list(self, value: list[Any] | tuple[Any, ...]) -> list[Any]:
        kinds = set(map(type, value))
        if kinds == _FLOATS and math.isfinite(sum(value)):
            return list(value)
        if kinds <= _SAME_OR_INT:
            ints = [item for item in value if type(item) is int] if len(kinds) > 1 else value if int in kinds else ()
            if not ints or (min(ints) >= -_MAX_INT and max(ints) < _MAX_INT):
                return list(value)
        return [self._at(index, item) for index, item in enumerate(value)]

    def _dict(self, value: Mapping[Any, Any]) -> Any:
        if set(map(type, value)) <= {str} and _KIND not in value:
            return {key: self._at(key, item) for key, item in value.items()}
        return {_KIND: "dict", "items": self._pairs(value)}

    def _ordered(self, value: "OrderedDict[Any, Any]") -> Any:
        plain = {_KIND: "ordered", "items": self._pairs(value)}
        attributes = vars(value)
        if attributes:  # torch keeps the versions of modules in an attribute of their state dict
            plain["attributes"] = self._at("__dict__", dict(attributes))
        return plain

    def _pairs(self, value: Mapping[Any, Any]) -> list[Any]:
        return [[self._key(key), self._at(key, item)] for key, item in value.items()]

    def _key(self, key: Any) -> Any:
        if not _is_key(key):
            raise self._unsavable(f"a key is a {type(key).__qualname__}")
        return self._encode(key)

    def _array(self, value: "np.ndarray[Any, Any]") -> dict[str, Any]:
        if value.dtype.kind not in _ARRAY_KINDS:
            raise self._unsavable(f"it is an array of {value.dtype}")
        flat = np.ascontiguousarray(value).reshape(-1)
        if not flat.flags.writeable:
            flat = flat.copy()  # torch wants memory that may be written to
        data = torch.from_numpy(flat.view(np.uint8))
        return {_KIND: "array", "name": self._add(data), "dtype": value.dtype.str, "shape": list(value.shape)}

    def _tensor(self, value: torch.Tensor) -> dict[str, Any]:
        if value.layout is not torch.strided or value.dtype not in DTYPES or value.is_meta:
            raise self._unsavable(f"it is a tensor of {value.dtype}, {value.layout} on {value.device}")
        plain = {_KIND: "tensor", "name": self._add(value)}
        if value.dim() > 3 and not value.is_contiguous():
            for name, memory_format in _MEMORY_FORMATS.items():
                if value.dim() == 4 + name.endswith("3d") and value.is_contiguous(memory_format=memory_format):
                    plain["memory_format"] = name
        return plain

    def _add(self, tensor: torch.Tensor) -> str:
        name = path = self._where()
        number = 2
        while name in self._taken:
            name, number = f"{path}~{number}", number + 1
        self._taken.add(name)
        self.names.append(name)
        self.tensors.append(tensor)
        return name

    def _where(self) -> str:
        path = "/".join(map(str, self._path))
        return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()

    def _unsavable(self, detail: str) -> EsperdError:
        return EsperdError("CHECKPOINT_UNSAVABLE", path=self._where(), detail=detail)


class Decoder:
    """The way back; `used` names the tensors that were asked for. Malformed values raise whatever they lead to."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self.used: set[str] = set()
        self._handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "int": lambda plain: int(plain["hex"], 16),
            "float": lambda plain: struct.unpack(">d", bytes.fromhex(plain["bits"]))[0],
            "tuple": lambda plain: tuple(self._items(plain)),
            "set": lambda plain: set(self._items(plain)),
            "frozenset": lambda plain: frozenset(self._items(plain)),
            "deque": lambda plain: deque(self._items(plain), plain["maxlen"]),
            "dict": self._pairs,
            "ordered": self._ordered,
            "counter": lambda plain: Counter(self._pairs(plain)),
            "bytes": lambda plain: base64.b64decode(plain["base64"], validate=True),
            "array": self._array,
            "scalar": lambda plain: self._array(plain)[()],
            "dtype": lambda plain: _DTYPE_NAMES[plain["name"]],
            "device": lambda plain: torch.device(plain["name"]),
            "size": lambda plain: torch.Size(plain["items"]),
            "tensor": self._tensor,
        }

    def decode(self, plain: Any) -> Any:
        """The value that `plain` stands for."""
        kind = type(plain)
        if kind is list:
            return list(plain) if set(map(type, plain)).isdisjoint((list, dict)) else [self.decode(p) for p in plain]
        if kind is not dict:
            return plain
        if _KIND not in plain:
            return {key: self.decode(value) for key, value in plain.items()}
        return self._handlers[plain[_KIND]](plain)

    def _items(self, plain: dict[str, Any]) -> list[Any]:
        items = self.decode(plain["items"])
        if type(items) is not list:
            raise TypeError("items are no list")
        return items

    def _pairs(self, plain: dict[str, Any]) -> dict[Any, Any]:
        return {self.decode(key): self.decode(value) for key, value in plain["items"]}

    def _ordered(self, plain: dict[str, Any]) -> "OrderedDict[Any, Any]":
        value = OrderedDict(self._pairs(plain))
        vars(value).update(self.decode(plain.get("attributes", {})))
        return value

    def _array(self, plain: dict[str, Any]) -> Any:
        dtype = np.dtype(plain["dtype"])
        if dtype.kind not in _ARRAY_KINDS:
            raise ValueError(f"an array of {dtype}")
        return self._find(plain).numpy().view(dtype).reshape(plain["shape"]).copy()

    def _tensor(self, plain: dict[str, Any]) -> torch.Tensor:
        tensor = self._find(plain)
        if tensor.dtype is torch.uint8:
            # torch's generators read a state from the beginning of its storage, wherever in it the tensor begins.
            tensor = tensor.clone()
        name = plain.get("memory_format")
        return tensor if name is None else tensor.contiguous(memory_format=_MEMORY_FORMATS[name])

    def _find(self, plain: dict[str, Any]) -> torch.Tensor:
        self.used.add(plain["name"])
        return self._tensors[plain["name"]]


def to_json(plain: Mapping[str, Any]) -> Iterator[bytes]:
    """The text of a whole state, at least one piece for each section.

    The interpreter is held while the text of a value is made, so that is done for a small part at a time: a training
    step beside it waits for a fraction of a millisecond.
    """
    opening = "{"
    for section, value in plain.items():
        text = [opening, json.dumps(section), ":"]
        for part in _texts(value, _SPLIT_DEPTH):
            text.append(part)
            if len(text) > _PARTS_A_PIECE:
                yield "".join(text).encode()
                text.clear()
        yield "".join(text).encode()
        opening = ",\n"
    yield b"}\n" if plain else b"{}\n"


def _texts(value: Any, depth: int) -> Iterator[str]:
    if depth and type(value) is dict and value:
        opening = "{"
        for key, item in value.items():
            yield opening + json.dumps(key) + ":"
            yield from _texts(item, depth - 1)
            opening = ","
        yield "}"
    elif type(value) is list and len(value) > _ITEMS_A_PART:
        opening = "["
        for start in range(0, len(value), _ITEMS_A_PART):
            yield opening + _dumps(value[start : start + _ITEMS_A_PART])[1:-1]
            opening = ","
        yield "]"
    else:
        yield _dumps(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _is_key(key: Any) -> bool:
    return type(key) in _KEYS or (type(key) is tuple and all(map(_is_key, key)))
