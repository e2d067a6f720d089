"""The reference as one page of Markdown."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from esper.leyline.v1 import options_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, MethodDescriptorProto

from esperd.control.errors import retry_after_s
from esperd.leyline.errors import CATALOGUE, DOMAIN, Entry, EsperdError
from tests.apidoc.contract import PACKAGE, Field, File, Message, Service, map_entry
from tests.apidoc.rules import field_rules, message_rules

_INTRODUCTION = f"""\
# API reference

Leyline, the control plane, is the protobuf package `{PACKAGE}`. This page is made from the proto files and the error
catalogue (`python -m tests.regenerate_protos`); [write-a-policy.md](write-a-policy.md) shows how to use it, and
[security.md](security.md) who may.

A method marked **signed** takes a [SignedEnvelope](#signedenvelope) and nothing else: what it asks is the payload
within, and the key that signs needs the permission that is named. All others are reads, and unsigned. Audited methods
leave a row in the audit log, also when they are refused. A field outside its rules is refused by its path and never
clamped; an empty field means what its comment says. Fields of answers have no rules, and a client must bear enum values
that it does not know.
"""
_SERVICES = (
    "Server",
    "Command",
    "Emergency",
    "Policy",
    "State",
    "Telemetry",
    "Run",
    "Checkpoint",
    "Kernel",
    "Audit",
    "Admin",
)
"""In the order in which one needs them."""
_WAITS = {"AUTH_THROTTLED", "RATE_LIMITED"}
"""Reasons whose RetryInfo is worked out for each refusal."""
_AREAS = {
    "AUTH": "Requests and keys",
    "CMD": "Commands",
    "SITE": "Sites",
    "SEED": "Seeds",
    "OPT": "Optimizers",
    "BRK": "Circuit breakers",
    "RUN": "Runs and emergencies",
    "CKP": "Checkpoints",
    "RBK": "Rollback",
    "EXP": "Export",
    "KRN": "Kernels",
    "SRV": "The daemon",
    "CFG": "Configuration and files",
    "TASK": "Tasks",
    "DEV": "Devices",
    "CLI": "Command lines and clients",
}
_SCALARS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_ROW_OF_ERRORS = (
    "| reason | code | status | what happened | what to do | again |\n| --- | --- | --- | --- | --- | --- |"
)
Link = Callable[[str], str]
"""Makes links of the names in a text: of those with two humps, since a Site or a Command may be meant as a word."""


def api_page(files: Iterable[File]) -> str:
    """The whole page."""
    files = tuple(files)
    link = _linker(files)
    own = sorted((file for file in files if file.services), key=lambda file: _place(file.services[0]))
    shared = [file for file in files if not file.services]
    parts = [_INTRODUCTION, *_contents(own)]
    for file in own:
        parts += _service(file, link)
    parts.append("## Shared messages\n")
    for file in shared:
        parts += _types(file, link)
    parts += _errors()
    return "\n".join(parts)


def _place(service: Service) -> int:
    return _SERVICES.index(service.name.removesuffix("Service"))


def _linker(files: Iterable[File]) -> Link:
    messages = {message.name for file in files for message in file.messages if not _is_trivial(message)}
    names = messages | {enum.name for file in files for enum in file.enums}

    def link(text: str) -> str:
        return re.sub(r"\b(?:[A-Z][a-z]+){2,}\b", lambda m: _to(m[0]) if m[0] in names else m[0], text)

    return link


def _to(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _is_trivial(message: Message) -> bool:
    """Whether its method says all of it: a request or an answer without fields, or with the envelope alone."""
    is_of_a_method = message.name.endswith(("Request", "Response"))
    return is_of_a_method and [field.descriptor.name for field in message.fields] in ([], ["envelope"])


def _contents(files: Iterable[File]) -> Iterator[str]:
    yield "| service | what | methods |\n| --- | --- | --- |"
    for file in files:
        for service in file.services:
            methods = ", ".join(_to(method.name) for method, _ in service.methods)
            yield f"| {_to(service.name)} | {service.comment} | {methods} |"
    yield "\n[Shared messages](#shared-messages) are those of several services; [errors](#errors) are the last table.\n"


# Services


def _service(file: File, link: Link) -> Iterator[str]:
    for service in file.services:
        yield f"## {service.name}\n\n{link(service.comment)}\n"
        for method, comment in service.methods:
            yield _method(method, comment, file, link)
    yield from _types(file, link)


def _method(method: MethodDescriptorProto, comment: str, file: File, link: Link) -> str:
    extension: Any = options_pb2.policy
    policy: options_pb2.MethodPolicy = method.options.Extensions[extension]
    marks = [f"permission `{options_pb2.Permission.Name(policy.permission).removeprefix('PERMISSION_').lower()}`"]
    marks += [
        text
        for is_so, text in (
            (policy.signed, "**signed**"),
            (policy.audited, "audited"),
            (policy.urgent, "emergency lane"),
            (policy.unix_only, "Unix socket only"),
        )
        if is_so
    ]
    asks = _shape(method.input_type, method.client_streaming, file)
    gives = _shape(method.output_type, method.server_streaming, file)
    return f"### {method.name}\n\n{asks} → {gives} · {' · '.join(marks)}\n\n{link(comment)}\n"


def _shape(type_name: str, is_stream: bool, file: File) -> str:
    name = type_name.rpartition(".")[2]
    message = next(one for one in file.messages if one.name == name)
    text = "nothing" if not message.fields else _to("SignedEnvelope" if _is_trivial(message) else name)
    return f"stream of {text}" if is_stream else text


# Messages and enums


def _types(file: File, link: Link) -> Iterator[str]:
    for message in file.messages:
        if not _is_trivial(message):
            yield from _message(message, link)
    for enum in file.enums:
        yield f"#### {enum.name}\n\n{link(enum.comment)}\n\n| value | number | meaning |\n| --- | --- | --- |"
        yield from (f"| `{name}` | {number} | {_cell(link(comment))} |" for name, number, comment in enum.values)
        yield ""


def _message(message: Message, link: Link) -> Iterator[str]:
    yield f"#### {message.name}\n\n{link(message.comment)}\n"
    together = message_rules(message.descriptor)
    if together:
        yield "Rules: " + "; ".join(together) + ".\n"
    has_rules = any(field_rules(field.descriptor) for field in message.fields)
    yield (
        "| field | type | rules | meaning |\n| --- | --- | --- | --- |"
        if has_rules
        else ("| field | type | meaning |\n| --- | --- | --- |")
    )
    for field in message.fields:
        rules = f" {_cell('; '.join(field_rules(field.descriptor)))} |" if has_rules else ""
        choice = f"*{field.oneof}:* " if field.oneof else ""
        name = f"`{field.descriptor.name}` = {field.descriptor.number}"
        yield f"| {name} | {_type(message, field)} |{rules} {_cell(choice + link(field.comment))} |"
    yield ""


def _type(message: Message, field: Field) -> str:
    entry = map_entry(message.descriptor, field.descriptor)
    if entry:
        return f"map of {_plain(entry[0])} to {_plain(entry[1])}"
    plain = _plain(field.descriptor)
    if field.descriptor.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {plain}"
    return f"optional {plain}" if field.descriptor.proto3_optional else plain


def _plain(field: FieldDescriptorProto) -> str:
    if not field.type_name:
        return _SCALARS[field.type]
    name = field.type_name.rpartition(".")[2]
    return _to(name) if field.type_name == f".{PACKAGE}.{name}" else name


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# Errors


def _errors() -> Iterator[str]:
    yield f"""\
## Errors

Every refusal carries a `google.rpc.Status` with `ErrorInfo`: the reason, the domain `{DOMAIN}`, and as metadata
the code and the facts, which stand in braces here. `BadRequest` names each field that breaks a rule. **Again** means
that it passes by itself: such a refusal carries `RetryInfo`, after which the same request may be sent (signed anew,
with its `request_id`). A refused command of a batch, and a command that the trainer has refused, carry the same reason
in a [CommandError](#commanderror). Reasons of the last tables are met when a daemon starts, or on a command line.
"""
    for area, title in _AREAS.items():
        entries = [entry for entry in CATALOGUE.values() if entry.code.split("-")[1] == area]
        yield f"### {title}\n\n{_ROW_OF_ERRORS}"
        yield from map(_error, entries)
        yield ""


def _error(entry: Entry) -> str:
    passes = entry.reason in _WAITS or retry_after_s(EsperdError(entry.reason)) is not None
    texts = (_cell(entry.happened), _cell(entry.next_step), "yes" if passes else "")
    return f"| `{entry.reason}` | {entry.code} | {entry.status} | {' | '.join(texts)} |"
