"""The proto files as values: services, messages and enums with their comments and options.

Comments exist only in what the compiler reads, so it is asked for descriptors with their source.
"""

import importlib.resources
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from esper.buf.validate import validate_pb2  # noqa: F401 - its options are understood from here on
from esper.leyline.v1 import options_pb2  # noqa: F401 - the same
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc  # type: ignore[import-untyped]  # it comes without types

PROTOS = Path(__file__).parents[2] / "protos"
PACKAGE = "esper.leyline.v1"
# Field numbers within descriptor.proto, of which the path of a comment is made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS = _METHODS = _VALUES = 2


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    descriptor: FieldDescriptorProto
    comment: str
    oneof: str
    """Name of the choice that it belongs to; empty for most."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    descriptor: DescriptorProto
    comment: str
    fields: tuple[Field, ...]

    @property
    def name(self) -> str:
        """Its name within the package."""
        return self.descriptor.name


@dataclass(frozen=True, slots=True)
class Enum:
    """One enum; its values are (name, number, comment)."""

    name: str
    comment: str
    values: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class Service:
    """One service; its methods are (descriptor, comment)."""

    name: str
    comment: str
    methods: tuple[tuple[MethodDescriptorProto, str], ...]


@dataclass(frozen=True, slots=True)
class File:
    """One proto file."""

    name: str
    """Without folder and suffix: `command_service`."""
    services: tuple[Service, ...]
    messages: tuple[Message, ...]
    enums: tuple[Enum, ...]


def read_contract() -> tuple[File, ...]:
    """Every file of the contract, in the order of their names."""
    return tuple(_file(file) for file in _described())


def _described() -> Iterator[FileDescriptorProto]:
    names = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("esper/leyline/v1/*.proto"))
    folders = (PROTOS, PROTOS / "third_party", Path(str(importlib.resources.files("grpc_tools") / "_proto")))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "contract.binpb")
        options = ["--include_source_info", f"--descriptor_set_out={target}", *(f"-I{place}" for place in folders)]
        if protoc.main(["protoc", *options, *names]) != 0:
            raise SystemExit("protoc has failed")
        yield from FileDescriptorSet.FromString(target.read_bytes()).file


class _Comments:
    def __init__(self, file: FileDescriptorProto) -> None:
        self._by_path = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}

    def at(self, *path: int) -> str:
        """The comment before something, as one paragraph."""
        return " ".join(self._by_path.get(path, "").split())


def _file(file: FileDescriptorProto) -> File:
    comments = _Comments(file)
    return File(
        Path(file.name).stem,
        tuple(
            Service(
                service.name,
                comments.at(_SERVICES, place),
                tuple(
                    (method, comments.at(_SERVICES, place, _METHODS, number))
                    for number, method in enumerate(service.method)
                ),
            )
            for place, service in enumerate(file.service)
        ),
        tuple(_message(message, comments, place) for place, message in enumerate(file.message_type)),
        tuple(_enum(enum, comments, place) for place, enum in enumerate(file.enum_type)),
    )


def _message(message: DescriptorProto, comments: _Comments, place: int) -> Message:
    nested = [one for one in message.nested_type if not one.options.map_entry]
    if nested or message.enum_type:
        raise SystemExit(f"{message.name} has types within, which the reference does not show")
    fields = tuple(
        Field(field, comments.at(_MESSAGES, place, _FIELDS, number), _oneof(message, field))
        for number, field in enumerate(message.field)
    )
    return Message(message, comments.at(_MESSAGES, place), fields)


def _oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    is_chosen = field.HasField("oneof_index") and not field.proto3_optional
    return message.oneof_decl[field.oneof_index].name if is_chosen else ""


def _enum(enum: EnumDescriptorProto, comments: _Comments, place: int) -> Enum:
    values = tuple(
        (value.name, value.number, comments.at(_ENUMS, place, _VALUES, number))
        for number, value in enumerate(enum.value)
    )
    return Enum(enum.name, comments.at(_ENUMS, place), values)


def map_entry(message: DescriptorProto, field: FieldDescriptorProto) -> Sequence[FieldDescriptorProto]:
    """Key and value of a map field; empty for any other."""
    for nested in message.nested_type:
        if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
            return nested.field
    return ()
