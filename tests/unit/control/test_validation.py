"""What breaks a rule of the contract is refused with the path of its field and words that a person can act on."""

import base64
import contextlib
import math
import urllib.parse
from collections.abc import Iterable

import pytest
from esper.leyline.v1 import (
    admin_service_pb2,
    audit_service_pb2,
    checkpoint_service_pb2,
    command_pb2,
    command_service_pb2,
    emergency_service_pb2,
    field_report_pb2,
    policy_service_pb2,
    run_service_pb2,
    server_service_pb2,
    state_service_pb2,
    telemetry_service_pb2,
)
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from esperd.control import validation
from esperd.control.batches import read_batch, read_decision, read_single
from esperd.control.errors import InvalidRequest, Violation, status_of
from esperd.control.validation import decode, max_entries, parse

Command = command_pb2.AdaptationCommand
Seed = command_pb2.CommandSeedOperation
Optimizer = command_pb2.CommandOptimizerAdjustment
Batch = command_service_pb2.CommandBatch
GERMINATE = {"operation": 1, "site": "block.1", "blueprint_id": "bottleneck"}
PAUSE = command_pb2.CommandRunControl(action=1)


def germinate(**fields: object) -> Command:
    return Command(request_id="r", seed_operation=Seed(**{**GERMINATE, **fields}))  # type: ignore[arg-type]


def seed(target: str = "1", **fields: object) -> Command:
    return Command(request_id="r", target_seed_id=target, seed_operation=Seed(**fields))  # type: ignore[arg-type]


def optimizer(**fields: object) -> Command:
    facts = {"optimizer_id": "host", "hyperparameters": {"lr": 0.1}, **fields}
    return Command(request_id="r", optimizer_adjustment=Optimizer(**facts))  # type: ignore[arg-type]


def pause(**fields: object) -> Command:
    return Command(**{"request_id": "r", "run_control": PAUSE, **fields})  # type: ignore[arg-type]


def report(**fields: object) -> field_report_pb2.FieldReport:
    return field_report_pb2.FieldReport(**{"report_id": "r", "outcome": 1, **fields})  # type: ignore[arg-type]


def alpha(**fields: object) -> command_pb2.AlphaSchedule:
    return command_pb2.AlphaSchedule(**{"num_steps": 5, "target": 0.5, **fields})  # type: ignore[arg-type]


def numbers(how_many: int) -> dict[str, float]:
    return {str(number): 1.0 for number in range(how_many)}


Action = field_report_pb2.MitigationAction
Risk = command_pb2.RiskVerdict

FAULTS: list[tuple[Message, str, str]] = [
    # A command
    (pause(version=2), "version", "is 2; it must be at most 1"),
    (pause(request_id=""), "request_id", "is required"),
    (pause(request_id="x" * 129), "request_id", "has more than 128 bytes"),
    (pause(request_id="é" * 65), "request_id", "has more than 128 bytes"),
    (pause(reason="x" * 1025), "reason", "has more than 1024 bytes"),
    (pause(decision_id="x" * 129), "decision_id", "has more than 128 bytes"),
    (pause(command_id="mine"), "command_id", "must be empty"),
    (pause(command_type=3), "command_type", "3 does not agree with the payload run_control"),
    (pause(target_seed_id="1"), "target_seed_id", "must be empty: only seed operations and kernel swaps name a seed"),
    (pause(expire_time={"seconds": -5}), "expire_time", "must be a time after 1970"),
    (pause(expire_time={"seconds": 5, "nanos": -1}), "expire_time", "has -1 nanoseconds"),
    (pause(apply_at={"global_step": 2**63}), "apply_at.global_step", f"is {2**63}; it must be at most {2**63 - 1}"),
    (pause(risk=[Risk(rule="a", action="pause")] * 65), "risk", "has more than 64 entries"),
    (pause(risk=[Risk(rule="", action="pause")]), "risk[0].rule", "is required"),
    (pause(risk=[Risk(rule="a", action="explode")]), "risk[0].action", "must be one of allow, downgrade, pause"),
    (pause(risk=[Risk(rule="a", action="allow", value=math.inf)]), "risk[0].value", "is not a finite number"),
    (pause(risk=[Risk(rule="a", action="allow", threshold=math.nan)]), "risk[0].threshold", "is not a finite number"),
    (Command(request_id="r"), "payload", "is required"),
    (Command(request_id="r", run_control={}), "run_control.action", "is required"),
    (Command(request_id="r", run_control={"action": 9}), "run_control.action", "9 is not known to this daemon"),
    # A seed's
    (seed(operation=99), "seed_operation.operation", "99 is not known to this daemon"),
    (germinate(operation=0), "seed_operation.operation", "is required"),
    (germinate(site=""), "seed_operation.site", "is required with GERMINATE: where the seed grows"),
    (germinate(site="s" * 513), "seed_operation.site", "has more than 512 bytes"),
    (germinate(blueprint_id=""), "seed_operation.blueprint_id", "is required with GERMINATE: what grows"),
    (germinate(parameters={"width": math.nan}), "seed_operation.parameters[width]", "is not a finite number"),
    (germinate(parameters={"": 1.0}), "seed_operation.parameters[]", "its name is empty"),
    (germinate(parameters=numbers(65)), "seed_operation.parameters", "has more than 64 entries"),
    (germinate(blend_mode=77), "seed_operation.blend_mode", "77 is not known to this daemon"),
    (germinate(training_mode=77), "seed_operation.training_mode", "77 is not known to this daemon"),
    (germinate(isolation=77), "seed_operation.isolation", "77 is not known to this daemon"),
    (germinate(auto_advance_until=7), "seed_operation.auto_advance_until", "means nothing without auto_advance"),
    (
        germinate(auto_advance_until=8, auto_advance=True),
        "seed_operation.auto_advance_until",
        "must lie between TRAINING and FOSSILIZED",
    ),
    (
        germinate(alpha=alpha(target=1.5)),
        "seed_operation.alpha.target",
        "is 1.5; it must be at least 0 and at most 1",
    ),
    (germinate(alpha=alpha(target=math.nan)), "seed_operation.alpha.target", "is nan"),
    (germinate(alpha=alpha(target=0.0)), "seed_operation.alpha.target", "must be above 0"),
    (germinate(alpha=alpha(num_steps=0)), "seed_operation.alpha.num_steps", "is 0; it must be at least 1"),
    (germinate(alpha=alpha(steepness=-1.0)), "seed_operation.alpha.steepness", "is -1; it must be at least 0"),
    (germinate(alpha=alpha(curve=9)), "seed_operation.alpha.curve", "9 is not known to this daemon"),
    (seed("", operation=8), "target_seed_id", "is required"),
    (seed("abc", operation=8), "target_seed_id", "must be the number of a seed"),
    (seed("0", operation=8), "target_seed_id", "must be the number of a seed"),
    (seed("1", **GERMINATE), "target_seed_id", "must be empty: GERMINATE makes a new seed"),
    (seed(operation=8, site="s"), "seed_operation.site", "must be empty except with GERMINATE: the seed has its site"),
    (
        seed(operation=8, blueprint_id="b"),
        "seed_operation.blueprint_id",
        "must be empty except with GERMINATE: the seed has its blueprint",
    ),
    (seed(operation=8, parameters={"w": 1.0}), "seed_operation.parameters", "must be empty except with GERMINATE"),
    (seed(operation=11), "seed_operation.alpha", "is required with SET_ALPHA: where alpha goes"),
    # The others
    (optimizer(optimizer_id="seed:0"), "optimizer_adjustment.optimizer_id", "must be host, all or seed:<number>"),
    (optimizer(hyperparameters={}), "optimizer_adjustment.hyperparameters", "is required"),
    (optimizer(action=2), "optimizer_adjustment.hyperparameters", "must be empty: RESET_STATE sets none"),
    (optimizer(hyperparameters={"lr": math.inf}), "optimizer_adjustment.hyperparameters[lr]", "is not a finite number"),
    (optimizer(action=7), "optimizer_adjustment.action", "7 is not known to this daemon"),
    (Command(request_id="r", circuit_breaker={"desired_state": 2}), "circuit_breaker.name", "is required"),
    (Command(request_id="r", circuit_breaker={"name": "x"}), "circuit_breaker.desired_state", "is required"),
    (Command(request_id="r", checkpoint={"note": "n" * 1025}), "checkpoint.note", "has more than 1024 bytes"),
    (Command(request_id="r", rollback={}), "rollback.target", "is required"),
    (Command(request_id="r", rollback={"checkpoint_id": ""}), "rollback.checkpoint_id", "is empty"),
    (Batch(), "commands", "is required"),
    (Batch(commands=[pause()] * 257), "commands", "has more than 256 entries"),
    (Batch(commands=[pause(), pause(request_id="")]), "commands[1].request_id", "is required"),
    (Batch(commands=[germinate(alpha=alpha(num_steps=0))]), "commands[0].seed_operation.alpha.num_steps", "is 0"),
    (policy_service_pb2.PolicyDecision(), "decision_id", "is required"),
    (policy_service_pb2.PolicyDecision(decision_id="d", rationale="r" * 1025), "rationale", "has more than 1024 bytes"),
    (
        policy_service_pb2.PolicyDecision(decision_id="d", commands=[pause(decision_id="e")]),
        "commands[0].decision_id",
        "must be empty or d",
    ),
    # Other payloads
    (command_service_pb2.CancelCommandPayload(), "command_id", "is required"),
    (emergency_service_pb2.EmergencySignal(reason="r", request_id="e"), "level", "is required"),
    (emergency_service_pb2.EmergencySignal(level=4, request_id="e"), "reason", "is required"),
    (emergency_service_pb2.EmergencySignal(level=4, reason="r"), "request_id", "is required"),
    (
        emergency_service_pb2.EmergencySignal(level=4, reason="r", request_id="e", acknowledge_within_ms=60_001),
        "acknowledge_within_ms",
        "is 60001; it must be at most 60000",
    ),
    (emergency_service_pb2.ClearEmergencyPayload(reason="r", request_id="e"), "emergency_id", "is required"),
    (run_service_pb2.StopRunPayload(), "request_id", "is required"),
    (run_service_pb2.StartRunPayload(), "after_run_id", "is required"),
    (policy_service_pb2.SessionOpening(policy_name="p"), "mode", "is required"),
    (policy_service_pb2.SessionOpening(mode=1), "policy_name", "is required"),
    (server_service_pb2.CheckAccessPayload(methods=[""]), "methods[0]", "is empty"),
    (admin_service_pb2.AdminPayload(reason="r" * 1025), "reason", "has more than 1024 bytes"),
    (admin_service_pb2.RevokeKeyPayload(), "key_id", "is required"),
    (admin_service_pb2.SetLogLevelPayload(level="loud"), "level", "must be one of debug, info, warning, error"),
    (checkpoint_service_pb2.PruneCheckpointsPayload(keep=1_000_001), "keep", "is 1000001; it must be at most 1000000"),
    (checkpoint_service_pb2.ExportCheckpointPayload(checkpoint_id="c"), "format", "is required"),
    (
        checkpoint_service_pb2.ExportCheckpointPayload(checkpoint_id="c", format=1, directory="here"),
        "directory",
        "must be an absolute path",
    ),
    (
        checkpoint_service_pb2.ExportCheckpointPayload(checkpoint_id="c", format=1, directory="/a\0b"),
        "directory",
        "must be an absolute path",
    ),
    (report(report_id=""), "report_id", "is required"),
    (report(outcome=0), "outcome", "is required"),
    (report(seed_id="x"), "seed_id", "must be the number of a seed"),
    (report(metrics={"loss": math.nan}), "metrics[loss]", "is not a finite number"),
    (report(propensity=1.5), "propensity", "is 1.5; it must be at least 0 and at most 1"),
    (report(follow_up_actions=[Action(action_type="CRY")]), "follow_up_actions[0].action_type", "must be one of"),
    (report(follow_up_actions=[Action(action_type="ROLLBACK_REQUEST")] * 17), "follow_up_actions", "more than 16"),
    # Reads
    (command_service_pb2.GetCommandRequest(wait_ms=300_001), "wait_ms", "is 300001; it must be at most 300000"),
    (command_service_pb2.ListCommandsRequest(state=99), "state", "99 is not known to this daemon"),
    (command_service_pb2.ListCommandsRequest(seed_id="x"), "seed_id", "must be the number of a seed"),
    (command_service_pb2.ListCommandsRequest(page_size=1001), "page_size", "is 1001; it must be at most 1000"),
    (command_service_pb2.WatchCommandsRequest(bookmark_interval_s=3601), "bookmark_interval_s", "is 3601"),
    (state_service_pb2.GetSeedRequest(), "seed_id", "is required"),
    (state_service_pb2.ListSeedsRequest(stage=99), "stage", "99 is not known to this daemon"),
    (state_service_pb2.WatchStateRequest(delivery=9), "delivery", "9 is not known to this daemon"),
    (state_service_pb2.WatchStateRequest(resume_token=bytes(129)), "resume_token", "has more than 128 bytes"),
    (telemetry_service_pb2.StreamTelemetryRequest(max_frames_per_s=math.nan), "max_frames_per_s", "is "),
    (telemetry_service_pb2.StreamTelemetryRequest(max_frames_per_s=-1), "max_frames_per_s", "is -1; it must be"),
    (telemetry_service_pb2.StreamTelemetryRequest(metrics=["loss"] * 65), "metrics", "has more than 64 entries"),
    (
        telemetry_service_pb2.StreamTelemetryRequest(min_event_level="loud"),
        "min_event_level",
        "must be one of info, warning, error, critical, none",
    ),
    (telemetry_service_pb2.QueryTelemetryRequest(), "metrics", "is required"),
    (
        telemetry_service_pb2.QueryTelemetryRequest(metrics=["loss.*"], first_step=9, last_step=4),
        "last_step",
        "must not lie before first_step",
    ),
    (audit_service_pb2.ListAuditEntriesRequest(method="m" * 257), "method", "has more than 256 bytes"),
]

GOOD: list[Message] = [
    pause(),
    pause(version=1, command_type=5, expected_revision=2**64 - 1, expire_time={"seconds": 1, "nanos": 5}),
    germinate(),
    germinate(alpha=alpha(), auto_advance=True, auto_advance_until=7, parameters=numbers(64)),
    seed(operation=8),
    seed(operation=11, alpha=alpha(target=0.0)),
    seed("9" * 18, operation=10),
    optimizer(),
    optimizer(optimizer_id="all", action=2, hyperparameters={}),
    optimizer(optimizer_id="seed:12", action=1),
    Command(request_id="r", rollback={"global_step": 0}),
    Command(request_id="r", rollback={"before_seed_id": "3", "tier": 2}),
    Batch(commands=[pause(request_id=str(number)) for number in range(256)]),
    policy_service_pb2.PolicyDecision(decision_id="d", commands=[pause(request_id="", decision_id="d")]),
    emergency_service_pb2.EmergencySignal(level=1, reason="r", request_id="e"),
    checkpoint_service_pb2.ExportCheckpointPayload(checkpoint_id="c", format=2, directory="/runs/a"),
    checkpoint_service_pb2.PruneCheckpointsPayload(keep_requested=0),
    report(version=1, seed_id="4", propensity=0.25, metrics={"loss": -1.0}),
    command_service_pb2.ListCommandsRequest(),
    command_service_pb2.GetCommandRequest(),
    state_service_pb2.WatchStateRequest(),
    telemetry_service_pb2.StreamTelemetryRequest(),
    telemetry_service_pb2.QueryTelemetryRequest(metrics=["loss"], first_step=9),
    run_service_pb2.GetRunRequest(),
]


def refused(message: Message) -> InvalidRequest | None:
    """How the daemon refuses what was signed or asked, None when it does not."""
    data = message.SerializeToString()
    try:
        match message:
            case Command():
                read_single(data, b"")
            case Batch():
                read_batch(data)
            case policy_service_pb2.PolicyDecision():
                read_decision(data)
            case _:
                parse(type(message), data)
    except InvalidRequest as refusal:
        return refusal
    return None


def violations(message: Message) -> tuple[Violation, ...]:
    refusal = refused(message)
    return () if refusal is None else refusal.violations


@pytest.mark.parametrize(("message", "field", "words"), FAULTS, ids=[f"{i}-{row[1]}" for i, row in enumerate(FAULTS)])
def test_a_fault_is_told_by_field_and_in_words(message: Message, field: str, words: str) -> None:
    """One fault, one line: where it is, and what would be right."""
    ((found_field, rule),) = [(found.field, found.rule) for found in violations(message)]
    assert found_field == field
    assert words in rule


@pytest.mark.parametrize("message", GOOD, ids=[f"{i}-{type(m).__name__}" for i, m in enumerate(GOOD)])
def test_what_keeps_its_rules_passes(message: Message) -> None:
    """What is left out stands for its default; limits are included."""
    assert violations(message) == ()


def test_every_fault_is_told_at_once() -> None:
    """Also those between fields, which the contract's rules do not know, so that nobody corrects them one by one."""
    message = germinate(operation=7, blend_mode=9, alpha=alpha(num_steps=0))
    message.reason, message.version, message.command_type = "x" * 1025, 3, 8
    assert {found.field for found in violations(message)} == {
        "version",
        "reason",
        "command_type",
        "target_seed_id",
        "seed_operation.site",
        "seed_operation.blueprint_id",
        "seed_operation.blend_mode",
        "seed_operation.alpha.num_steps",
    }


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Command(), "COMMAND_INVALID"),
        (Batch(), "COMMAND_INVALID"),
        (run_service_pb2.StopRunPayload(), "COMMAND_INVALID"),
        (field_report_pb2.FieldReport(), "REPORT_INVALID"),
        (state_service_pb2.GetSeedRequest(), "REQUEST_INVALID"),
        (admin_service_pb2.RevokeKeyPayload(), "REQUEST_INVALID"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else value,
)
def test_the_reason_says_what_was_wrong(message: Message, reason: str) -> None:
    """A command, a report or a request; also when the bytes are none."""
    refusal = refused(message)
    assert refusal is not None
    assert refusal.reason == reason
    with pytest.raises(InvalidRequest, match=f"is not a serialized {type(message).__name__}") as caught:
        decode(type(message), b"\xff\xff")
    assert caught.value.reason == reason


def test_a_megabyte_of_faults_is_not_looked_at() -> None:
    """Overfull lists are refused by their length, at any depth; nothing inside them is checked or worded."""
    risky = Command(request_id="r", risk=[Risk()] * 300_000)
    for message, field in (
        (Batch(commands=[Command()] * 400_000), "commands"),
        (risky, "risk"),
        (Batch(commands=[pause(), risky]), "commands[1].risk"),
        (germinate(parameters=numbers(60_000)), "seed_operation.parameters"),
    ):
        assert [found.field for found in violations(message)] == [field]


def test_of_many_faults_the_first_ones_are_told() -> None:
    """So that a status stays small, and the loop free."""
    bad = [pause(risk=[Risk(rule="a", action="explode")] * 60)]
    found = violations(Batch(commands=bad * 8))
    assert len(found) == validation.MAX_VIOLATIONS
    vast = [found.field for found in violations(Batch(commands=bad * 100))]
    assert vast == ["commands[0].risk[0].action"]


def test_a_refusal_fits_into_a_header() -> None:
    """Clients accept 8 KiB; whatever a caller calls its numbers, the refusal that quotes them arrives."""
    names = {f"{'🌱' * 40}{number}": math.nan for number in range(60)}
    refusal = refused(germinate(parameters=names, site="🌱" * 400))
    assert refusal is not None
    status = status_of(refusal)
    header = base64.b64encode(status.SerializeToString())
    assert len(header) + len(urllib.parse.quote(status.message)) < 8000


def test_what_has_no_rules_is_not_bounded() -> None:
    """Other people's contracts state none: their lists are taken as they are."""
    page = run_service_pb2.ListRunsResponse(runs=[{"run_id": "x" * 100}] * 2000)
    assert parse(type(page), page.SerializeToString()) == page


def test_limits_are_the_contracts() -> None:
    """What the daemon states as its limit is read from the rule."""
    assert max_entries(Batch, "commands") == 256


KINDS: tuple[type[Message], ...] = (
    Command,
    Batch,
    policy_service_pb2.PolicyDecision,
    field_report_pb2.FieldReport,
    emergency_service_pb2.EmergencySignal,
    telemetry_service_pb2.QueryTelemetryRequest,
)


def _seeds() -> Iterable[bytes]:
    return [message.SerializeToString() for message in [*GOOD, *(row[0] for row in FAULTS)] if message.ByteSize() < 500]


@given(st.sampled_from(list(_seeds())), st.lists(st.tuples(st.integers(0, 499), st.integers(0, 255)), max_size=8))
def test_whatever_comes_is_read_or_refused(data: bytes, changes: list[tuple[int, int]]) -> None:
    """Bytes that are nearly right raise nothing but the refusal."""
    spoiled = bytearray(data)
    for position, byte in changes:
        if position < len(spoiled):
            spoiled[position] = byte
    readers = [lambda kind=kind: parse(kind, bytes(spoiled)) for kind in KINDS]
    readers += [lambda: read_single(bytes(spoiled), b""), lambda: read_batch(bytes(spoiled))]
    for read in [*readers, lambda: read_decision(bytes(spoiled))]:
        with contextlib.suppress(InvalidRequest):
            read()
