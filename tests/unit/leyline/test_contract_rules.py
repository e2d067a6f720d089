"""The contract bounds everything that comes from outside, and its rules are ones that can be applied and told."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from esper.buf.validate import validate_pb2
from esper.leyline.v1 import envelope_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from protovalidate import Validator

from esperd.leyline import verify
from esperd.leyline.method_policy import services
from tests.regenerate_protos import PROTOS

FIELD: Any = validate_pb2.field
MESSAGE: Any = validate_pb2.message
PACKAGE = "esper.leyline.v1."

Place = tuple[Descriptor, FieldDescriptor]


def payload_names() -> set[str]:
    """What the comments of the contract name as the payload of a signed envelope."""
    text = " ".join(
        line.strip().removeprefix("// ")
        for path in sorted(PROTOS.glob("esper/leyline/v1/*.proto"))
        for line in path.read_text().splitlines()
        if line.strip().startswith("//")
    )
    named = set(re.findall(r"payload is an? (?!serialized|message)([A-Z]\w+)", text))
    return named | set(re.findall(r"with a signed ([A-Z]\w+)", text))


def roots() -> list[Descriptor]:
    """Everything that comes from outside: the requests, what envelopes hold, and envelopes."""
    pool = descriptor_pool.Default()
    requests = {method.input_type.full_name: method.input_type for service in services() for method in service.methods}
    payloads = [pool.FindMessageTypeByName(PACKAGE + name) for name in sorted(payload_names())]
    return [*requests.values(), *payloads, envelope_pb2.SignedHeader.DESCRIPTOR]


def messages() -> list[Descriptor]:
    """The roots and every message in them; map entries and other people's messages left out."""
    found: dict[str, Descriptor] = {}

    def visit(kind: Descriptor) -> None:
        if kind.full_name.startswith(PACKAGE) and kind.full_name not in found:
            found[kind.full_name] = kind
            for field in kind.fields:
                for inner in entry_types(field):
                    visit(inner)

    for root in roots():
        visit(root)
    return list(found.values())


def entry_types(field: FieldDescriptor) -> list[Descriptor]:
    if field.message_type is None:
        return []
    if not field.message_type.GetOptions().map_entry:
        return [field.message_type]
    value = field.message_type.fields_by_name["value"].message_type
    return [] if value is None else [value]


def fields() -> Iterator[Place]:
    for kind in messages():
        for field in kind.fields:
            yield kind, field


def rules_of(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[FIELD]


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def faults_of(kind: int, rules: Any) -> list[str]:
    """Which bound a value of this kind lacks."""
    text, data = rules.string, rules.bytes
    match kind:
        case FieldDescriptor.TYPE_STRING if not (text.HasField("max_bytes") or getattr(text, "in")):
            return ["a text without a length"]
        case FieldDescriptor.TYPE_BYTES if not (data.HasField("max_len") or data.HasField("len")):
            return ["bytes without a length"]
        case FieldDescriptor.TYPE_ENUM if not (rules.enum.defined_only or rules.cel):
            return ["an enum that may hold any number"]
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            number = rules.float if kind == FieldDescriptor.TYPE_FLOAT else rules.double
            is_bounded = number.WhichOneof("less_than") and number.WhichOneof("greater_than")
            return [] if number.finite or is_bounded else ["a number that may be infinite"]
    return []


def test_the_payloads_are_found() -> None:
    """Every signed method's payload is named in its comment, by the words that the walk looks for."""
    signed = {
        "AdaptationCommand", "CommandBatch", "EmergencySignal", "FieldReport", "PolicyDecision", "SessionOpening",
        "UploadChunk",
    }  # fmt: skip
    named = payload_names()
    assert signed <= named
    declared = {
        name
        for path in PROTOS.glob("esper/leyline/v1/*.proto")
        for name in re.findall(r"^message (\w+Payload) ", path.read_text(), re.MULTILINE)
    }
    assert named - signed == declared


@pytest.mark.parametrize(
    ("kind", "field"), [pytest.param(*place, id=f"{place[0].name}.{place[1].name}") for place in fields()]
)
def test_every_field_from_outside_is_bounded(kind: Descriptor, field: FieldDescriptor) -> None:
    """Texts, bytes, lists and maps have a length, enums known members, numbers an end; also inside lists and maps."""
    rules = rules_of(field)
    faults = []
    if is_map(field):
        entry = field.message_type.fields_by_name
        faults = [] if rules.map.max_pairs else ["a map without a size"]
        faults += faults_of(entry["key"].type, rules.map.keys) + faults_of(entry["value"].type, rules.map.values)
    elif field.is_repeated:
        faults = [] if rules.repeated.max_items else ["a list without a size"]
        faults += faults_of(field.type, rules.repeated.items)
    else:
        faults = faults_of(field.type, rules)
    assert faults == []


@pytest.mark.parametrize("kind", messages(), ids=lambda kind: kind.name)
def test_the_rules_can_be_applied(kind: Descriptor) -> None:
    """Each compiles, an empty message can be judged, and the id of a rule between fields begins with one of them."""
    Validator().collect_violations(message_factory.GetMessageClass(kind)())
    for rule in kind.GetOptions().Extensions[MESSAGE].cel:
        path, dash, what = rule.id.partition("-")
        assert dash
        assert what
        assert rule.message
        at: Descriptor | None = kind
        for name in path.split("."):
            assert at is not None
            assert name in at.fields_by_name, f"{rule.id}: {at.name} has no field {name}"
            at = at.fields_by_name[name].message_type
    for field in kind.fields:
        for rule in rules_of(field).cel:
            assert rule.message
            assert "-" not in rule.id, "a dash is the sign of a rule between fields"


def test_the_envelope_states_what_the_verifier_checks() -> None:
    """Its limits are checked in the order of the design, with reasons of their own, and told to signers here."""
    envelope = envelope_pb2.SignedEnvelope.DESCRIPTOR.fields_by_name
    header = envelope_pb2.SignedHeader.DESCRIPTOR.fields_by_name
    assert rules_of(envelope["header"]).bytes.max_len == verify.MAX_HEADER_BYTES
    assert rules_of(envelope["payload"]).bytes.max_len == verify.MAX_PAYLOAD_BYTES
    assert rules_of(envelope["signature"]).bytes.len == 32
    nonce = rules_of(header["nonce"]).bytes
    assert (nonce.min_len, nonce.max_len) == (verify.MIN_NONCE_BYTES, verify.MAX_NONCE_BYTES)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("command.proto", "string reason = 9", "string reason = 19"),
        ("command.proto", "uint64 expected_revision = 21", "uint32 expected_revision = 21"),
        ("command_service.proto", "rpc CancelCommand(", "rpc WithdrawCommand("),
    ],
    ids=["a number", "a type", "a method"],
)
def test_what_would_break_released_clients_is_found(tmp_path: Path, file: str, old: str, new: str) -> None:
    """`buf breaking`, as test_quality.py runs it, sees a field that moves or changes and a method that goes."""
    changed = tmp_path / "protos"
    shutil.copytree(PROTOS, changed)
    path = changed / "esper/leyline/v1" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    buf = Path(sys.executable).parent / "buf"
    command = [str(buf), "breaking", str(changed), "--against", str(PROTOS / "released.binpb")]
    environment = {"HOME": str(tmp_path), "PATH": "", "BUF_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0
    assert file in done.stdout, done.stdout + done.stderr
