"""The contract holds together: words and wire numbers, error catalogue, generated code, lint, method policies."""

import enum
import shutil
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import esper.leyline.v1
import grpc
import pytest
from esper.leyline.v1 import kernel_pb2, options_pb2, vocabulary_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import EnumDescriptor

from esperd.leyline import vocabulary
from esperd.leyline.errors import CATALOGUE, EsperdError
from esperd.leyline.method_policy import read_method_policies, services
from esperd.leyline.vocabulary import Permission
from tests.regenerate_protos import PROTOS, generate

WORDS = {
    vocabulary.Stage: (vocabulary_pb2.SeedLifecycleStage, "SEED_STAGE_"),
    vocabulary.Gate: (vocabulary_pb2.SeedLifecycleGate, "SEED_GATE_"),
    vocabulary.Verdict: (vocabulary_pb2.GateVerdict, "GATE_VERDICT_"),
    vocabulary.Operation: (vocabulary_pb2.SeedOperation, "SEED_OPERATION_"),
    vocabulary.BlendMode: (vocabulary_pb2.BlendMode, "BLEND_MODE_"),
    vocabulary.TrainingMode: (vocabulary_pb2.TrainingMode, "TRAINING_MODE_"),
    vocabulary.Isolation: (vocabulary_pb2.Isolation, "ISOLATION_"),
    vocabulary.AlphaCurve: (vocabulary_pb2.AlphaCurve, "ALPHA_CURVE_"),
    vocabulary.CommandState: (vocabulary_pb2.CommandState, "COMMAND_STATE_"),
    vocabulary.EmergencyLevel: (vocabulary_pb2.EmergencyLevel, "EMERGENCY_LEVEL_"),
    vocabulary.TrainerPhase: (vocabulary_pb2.TrainerPhase, "TRAINER_PHASE_"),
    vocabulary.BlueprintTier: (vocabulary_pb2.BlueprintTier, "BLUEPRINT_TIER_"),
    vocabulary.BreakerState: (vocabulary_pb2.CircuitBreakerState, "CIRCUIT_BREAKER_STATE_"),
    vocabulary.FieldReportOutcome: (vocabulary_pb2.FieldReportOutcome, "FIELD_REPORT_OUTCOME_"),
    vocabulary.LeaseMode: (vocabulary_pb2.LeaseMode, "LEASE_MODE_"),
    vocabulary.CheckpointKind: (vocabulary_pb2.CheckpointKind, "CHECKPOINT_KIND_"),
    vocabulary.RollbackTier: (vocabulary_pb2.RollbackTier, "ROLLBACK_TIER_"),
    vocabulary.KernelState: (kernel_pb2.KernelState, "KERNEL_STATE_"),
    vocabulary.KernelFileRole: (kernel_pb2.KernelFileRole, "KERNEL_FILE_ROLE_"),
    vocabulary.KernelInputKind: (kernel_pb2.KernelInputKind, "KERNEL_INPUT_KIND_"),
    vocabulary.HazardBand: (kernel_pb2.HazardBand, "HAZARD_BAND_"),
    vocabulary.HandlingClass: (kernel_pb2.HandlingClass, "HANDLING_CLASS_"),
    vocabulary.Permission: (options_pb2.Permission, "PERMISSION_"),
}
"""Every set of words: its enum on the wire, and the prefix of the names there."""


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words.__name__)
def test_words_have_their_wire_numbers(words: type[enum.IntEnum]) -> None:
    """A value crosses the wire by its number alone, so names and numbers are the same on both sides."""
    wire, prefix = WORDS[words]
    descriptor: EnumDescriptor = wire.DESCRIPTOR
    assert {word.name: word.value for word in words} == {
        value.name.removeprefix(prefix): value.number for value in descriptor.values
    }


def test_every_set_of_words_is_compared() -> None:
    """No enum of either side is left out."""
    declared = {item for item in vars(vocabulary).values() if isinstance(item, enum.EnumMeta)}
    assert declared - {enum.IntEnum} == set(WORDS)
    files = (vocabulary_pb2, options_pb2, kernel_pb2)
    on_the_wire = {name for file in files for name in file.DESCRIPTOR.enum_types_by_name}
    assert on_the_wire == {wire.DESCRIPTOR.name for wire, _ in WORDS.values()}


def test_catalogue_codes_and_reasons_are_unique() -> None:
    """One code, one reason; the table has no row that hides another."""
    codes = [entry.code for entry in CATALOGUE.values()]
    assert len(set(codes)) == len(codes)
    from esperd.leyline.errors import _ROWS

    assert len(_ROWS) == len(CATALOGUE)


@pytest.mark.parametrize("reason", CATALOGUE)
def test_catalogue_entry_is_sound(reason: str) -> None:
    """A valid gRPC status, a code of the form E-XXX-NNN, texts that fill from facts alone and end as sentences."""
    entry = CATALOGUE[reason]
    assert entry.status in grpc.StatusCode.__members__
    assert entry.status != "OK"
    area, number = entry.code.removeprefix("E-").split("-")
    assert entry.code.startswith("E-")
    assert area.isupper()
    assert len(number) == 3
    assert number.isdigit()
    names = {
        name for text in (entry.happened, entry.next_step) for _, name, _, _ in string.Formatter().parse(text) if name
    }
    message = EsperdError(reason, **{name: f"<{name}>" for name in names}).message
    assert message.startswith(f"{entry.code}: ")
    assert "?" not in message
    assert "{" not in message
    assert all(f"<{name}>" in message for name in names)
    assert entry.next_step


def test_every_method_has_a_policy() -> None:
    """25 methods or more, each with a permission; every change is signed and audited, no read is audited."""
    policies = read_method_policies()
    assert set(policies) == {
        f"/{service.full_name}/{method.name}" for service in services() for method in service.methods
    }
    for policy in policies.values():
        reads = policy.permission is Permission.OBSERVE
        assert policy.signed or reads, policy.method
        assert policy.audited != reads, policy.method
    urgent = {policy.method for policy in policies.values() if policy.urgent}
    assert all("EmergencyService" in method for method in urgent)
    assert len(urgent) == 3


def test_every_service_file_is_read() -> None:
    """A new service file cannot be forgotten."""
    files = {path.stem for path in PROTOS.glob("esper/leyline/v1/*_service.proto")}
    assert files == {Path(service.file.name).stem for service in services()}


@pytest.mark.parametrize(("permission", "signed"), [(0, True), (99, True), (2, False)])
def test_method_without_a_sound_policy_stops_the_daemon(permission: int, signed: bool) -> None:
    """No permission, an unknown one, or a change without a signature is an error at start-up."""
    file = descriptor_pb2.FileDescriptorProto(name=f"t{permission}.proto", package=f"t{permission}", syntax="proto3")
    file.dependency.append("esper/leyline/v1/options.proto")
    file.message_type.add(name="M")
    method = file.service.add(name="S").method.add(
        name="Do", input_type=f".t{permission}.M", output_type=f".t{permission}.M"
    )
    extension: Any = options_pb2.policy
    policy = method.options.Extensions[extension]
    policy.permission, policy.signed = permission, signed
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    with pytest.raises(EsperdError, match=rf"the method /t{permission}\.S/Do"):
        read_method_policies([pool.FindServiceByName(f"t{permission}.S")])


def test_generated_code_is_current(tmp_path: Path) -> None:
    """What is checked in is what the pinned generator makes of the proto files."""
    command = [
        sys.executable,
        "-c",
        "import sys, pathlib; from tests.regenerate_protos import generate; generate(pathlib.Path(sys.argv[1]))",
        str(tmp_path),
    ]
    subprocess.run(command, check=True, cwd=PROTOS.parent)
    checked_in = Path(esper.leyline.v1.__path__[0])
    made = {path.name: path.read_bytes() for path in (tmp_path / "esper/leyline/v1").iterdir()}
    kept = {path.name: path.read_bytes() for path in checked_in.iterdir() if "_pb2" in path.name}
    assert made.keys() == kept.keys()
    assert [name for name in made if made[name] != kept[name]] == []
    assert callable(generate)


@pytest.mark.parametrize("check", [["lint"], ["format", "-d", "--exit-code"]], ids=lambda check: check[0])
def test_buf_finds_nothing(check: list[str], tmp_path: Path) -> None:
    """The proto files follow the style rules of buf.yaml and are formatted."""
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    assert buf is not None, "buf comes with the test extra (buf-bin)"
    environment = {"HOME": str(tmp_path), "PATH": "", "BUF_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([buf, *check], cwd=PROTOS, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
