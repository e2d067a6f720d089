"""The rules of a field in words: what protovalidate checks, as a caller reads it.

A rule that has no words here stops the generator, so that no rule is left out of the reference.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from esper.buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto


def field_rules(field: FieldDescriptorProto) -> list[str]:
    """What a field must keep to, one phrase each."""
    extension: Any = validate_pb2.field
    rules: validate_pb2.FieldRules = field.options.Extensions[extension]
    return _phrases(rules)


def message_rules(message: DescriptorProto) -> list[str]:
    """What the fields of a message must keep to together."""
    extension: Any = validate_pb2.message
    rules: validate_pb2.MessageRules = message.options.Extensions[extension]
    found = [f"`{rule.id.rpartition('-')[0] or rule.id}` {rule.message}" for rule in rules.cel]
    required: Any = validate_pb2.oneof
    for number, oneof in enumerate(message.oneof_decl):
        if oneof.options.Extensions[required].required:
            names = [f"`{field.name}`" for field in message.field if _is_in(field, number)]
            found.append(f"one of {', '.join(names)} is required")
    return found


def _is_in(field: FieldDescriptorProto, oneof: int) -> bool:
    return field.HasField("oneof_index") and field.oneof_index == oneof


def _phrases(rules: validate_pb2.FieldRules) -> list[str]:
    told: list[str] = []
    if_set = "if set, " if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE else ""
    for kind, value in rules.ListFields():
        match kind.name:
            case "required":
                told.insert(0, "required")
            case "ignore":
                pass
            case "cel":
                told += [rule.message for rule in value]
            case "repeated" | "map":
                told += _collection(value)
            case _:
                told += [if_set + phrase for phrase in _scalar(kind.name, value)]
    return told


def _collection(rules: Any) -> list[str]:
    told = []
    names: Mapping[str, Callable[[Any], str]] = {
        "min_items": lambda number: f"at least {number} entries",
        "max_items": lambda number: f"at most {number} entries",
        "max_pairs": lambda number: f"at most {number} entries",
        "items": lambda inner: f"each {_joined(inner)}",
        "keys": lambda inner: f"names {_joined(inner)}",
        "values": lambda inner: f"values {_joined(inner)}",
    }
    for rule, value in rules.ListFields():
        told.append(_worded(names, rule.name)(value))
    return told


def _joined(rules: validate_pb2.FieldRules) -> str:
    return " and ".join(_phrases(rules))


def _scalar(kind: str, rules: Any) -> Iterable[str]:
    unit = {"string": "characters", "bytes": "bytes"}.get(kind, "")
    given = {rule.name: value for rule, value in rules.ListFields()}
    low, high = given.pop("gte", None), given.pop("lte", None)
    if low is not None and high is not None:
        yield f"{low:g} to {high:g}" if isinstance(low, float) else f"{low} to {high}"
    elif low is not None:
        yield f"at least {low:g}" if isinstance(low, float) else f"at least {low}"
    elif high is not None:
        yield f"at most {high:g}" if isinstance(high, float) else f"at most {high}"
    if kind == "bytes" and {"min_len", "max_len"} <= set(given):
        yield f"{given.pop('min_len')} to {given.pop('max_len')} bytes"
    names: Mapping[str, Callable[[Any], str]] = {
        "min_len": lambda number: "not empty" if number == 1 else f"at least {number} {unit}",
        "max_len": lambda number: f"at most {number} {unit}",
        "len": lambda number: f"exactly {number} {unit}",
        "max_bytes": lambda number: f"at most {number} bytes" if number else "empty",
        "in": lambda words: f"one of {', '.join(f'`{word}`' for word in words)}",
        "pattern": lambda pattern: f"matches `{pattern}`",
        "const": lambda value: f"exactly {value}",
        "finite": lambda _: "finite",
        "defined_only": lambda _: "a known value",
        "gt": lambda value: f"after {_date(value)}" if kind == "timestamp" else f"above {value:g}",
    }
    for name, value in given.items():
        yield _worded(names, name)(value)


def _worded(names: Mapping[str, Callable[[Any], str]], name: str) -> Callable[[Any], str]:
    if name not in names:
        raise SystemExit(f"the rule {name} has no words in tests/apidoc/rules.py")
    return names[name]


def _date(timestamp: Any) -> str:
    return datetime.datetime.fromtimestamp(timestamp.seconds, datetime.UTC).strftime("%Y-%m-%d")
