"""Frozen values to JSON text and back, by their type annotations.

Pure functions. The text stays readable by people and by other tools: enums by name, bytes in base64, and numbers that
JSON does not know (`nan`, `inf`) as strings. Fields that a newer daemon added are ignored, missing ones take defaults.
"""

import base64
import dataclasses
import enum
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

ValueT = TypeVar("ValueT")


def to_json(value: object) -> str:
    """One dataclass value as a line of JSON."""
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def from_json(value_type: type[ValueT], text: str) -> ValueT:
    """The value that `to_json` wrote."""
    value: ValueT = _typed(value_type, json.loads(text))
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def _typed(annotation: Any, plain: Any) -> Any:
    if isinstance(annotation, types.UnionType):
        inner = next(member for member in typing.get_args(annotation) if member is not types.NoneType)
        return None if plain is None else _typed(inner, plain)
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return tuple(_typed(typing.get_args(annotation)[0], item) for item in plain)
    if origin is Mapping:
        return {key: _typed(typing.get_args(annotation)[1], item) for key, item in plain.items()}
    if issubclass(annotation, enum.Enum):
        return annotation[plain]
    if annotation is bytes:
        return base64.b64decode(plain)
    if annotation is float:
        return float(plain)
    if hasattr(annotation, "__dataclass_fields__"):
        hints = _hints(annotation)
        return annotation(**{name: _typed(hint, plain[name]) for name, hint in hints.items() if name in plain})
    return plain


@functools.cache
def _hints(value_type: Any) -> dict[str, Any]:
    return typing.get_type_hints(value_type)
