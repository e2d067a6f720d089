"""A command read again from its record is the command that was handed over, whatever brought it."""

import hashlib
import typing
from dataclasses import replace

import pytest
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1 import emergency_service_pb2, run_service_pb2
from esper.leyline.v1.command_service_pb2 import CommandBatch
from esper.leyline.v1.policy_service_pb2 import PolicyDecision

from esperd.control.asked import Asked
from esperd.control.batches import read_batch, read_decision, read_single
from esperd.control.command_desk import Submission
from esperd.control.command_messages import CLEAR_EMERGENCY, DAEMON, RAISE_EMERGENCY, STOP_RUN, command_message
from esperd.control.errors import InvalidRequest
from esperd.control.recorded_commands import own_payload, to_command
from esperd.leyline.commands import (
    ApplyAt,
    Command,
    EmergencyCommand,
    KernelSwapCommand,
    PauseCommand,
    Payload,
    PolicyPresence,
    StopCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import EmergencyLevel
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.records import CommandRecord

SERVICE = "/esper.leyline.v1.CommandService/"
DECISION_STREAM = "/esper.leyline.v1.PolicyService/DecisionStream"
GERMINATE = pb.CommandSeedOperation(
    operation=1,
    blueprint_id="bottleneck",
    site="block.1",
    parameters={"width": 8.0},
    alpha=pb.AlphaSchedule(curve=2, num_steps=30, target=0.9),
    auto_advance=True,
)
PAYLOADS = {
    "seed": {"seed_operation": GERMINATE},
    "cull": {"seed_operation": pb.CommandSeedOperation(operation=8), "target_seed_id": "4"},
    "hyperparameters": {
        "optimizer_adjustment": pb.CommandOptimizerAdjustment(
            optimizer_id="seed:3", action=1, hyperparameters={"lr": 1e-3}
        )
    },
    "reset": {"optimizer_adjustment": pb.CommandOptimizerAdjustment(optimizer_id="host", action=2)},
    "pause": {"run_control": pb.CommandRunControl(action=pb.RUN_ACTION_PAUSE)},
    "resume": {"run_control": pb.CommandRunControl(action=pb.RUN_ACTION_RESUME)},
    "stop": {"run_control": pb.CommandRunControl(action=pb.RUN_ACTION_STOP)},
    "checkpoint": {"checkpoint": pb.CommandCheckpoint(note="before lunch")},
    "to a checkpoint": {"rollback": pb.CommandRollback(checkpoint_id="t001-s000000100", tier=2)},
    "to a step": {"rollback": pb.CommandRollback(global_step=0)},
    "before a seed": {"rollback": pb.CommandRollback(before_seed_id="3", tier=1)},
    "kernel": {"kernel_swap": pb.CommandKernelSwap(artifact_id="ab" * 32), "target_seed_id": "4"},
    "eager": {"kernel_swap": pb.CommandKernelSwap(), "target_seed_id": "4"},
    "breaker": {"circuit_breaker": pb.CommandCircuitBreaker(name="isolation", desired_state=2)},
}


def message(kind: str, **fields: object) -> pb.AdaptationCommand:
    """One of each kind, with everything that a command may carry."""
    facts: dict[str, object] = {
        "request_id": "r-1",
        "reason": "a test",
        "expected_revision": 17,
        "apply_at": pb.ApplyAt(global_step=500),
        **PAYLOADS[kind],
        **fields,
    }
    made = pb.AdaptationCommand(**facts)  # type: ignore[arg-type]
    made.expire_time.FromNanoseconds(1_900_000_000_250_000_000)
    return made


def record(method: str, payload: bytes, kind: str = "", **fields: object) -> CommandRecord:
    digest = hashlib.sha256(payload).digest()
    made = CommandRecord("c-1", "r-1", "operator", "operator-1", method, kind, payload, digest, 1.8e9, "a test")
    return replace(made, **fields)  # type: ignore[arg-type]


def handed_over(asked: Asked) -> Command:
    """As the desk makes it."""
    return Command(
        "c-1",
        asked.payload,
        "operator",
        asked.reason,
        asked.expected_revision,
        asked.apply_at,
        asked.expire_time_unix_s,
        asked.decision_id,
    )


async def kept(found: CommandRecord) -> CommandRecord:
    """The record as a journal gives it back."""
    journal = MemoryJournal()
    return (await journal.accept([found]))[0].record


async def check(method: str, submission: Submission) -> Command:
    """Read it again from what the journal keeps and compare."""
    asked = submission.asked
    found = record(method, submission.payload, asked.kind, decision_id=asked.decision_id, seed_id=asked.seed_id)
    command = to_command(await kept(found))
    assert command == handed_over(asked)
    return command


@pytest.mark.parametrize("kind", PAYLOADS)
async def test_a_command_that_came_alone(kind: str) -> None:
    """Every payload kind, with its dates and the revision that it expects."""
    data = message(kind).SerializeToString()
    command = await check(SERVICE + "SubmitCommand", read_single(data, hashlib.sha256(data).digest()))
    assert (command.apply_at, command.expected_revision) == (ApplyAt(500), 17)
    assert command.expire_time_unix_s == pytest.approx(1_900_000_000.25)


@pytest.mark.parametrize("method", [SERVICE + "SubmitCommands", SERVICE + "CommandStream"])
async def test_commands_of_a_batch(method: str) -> None:
    """Each is kept with its own bytes, cut out of the batch."""
    data = CommandBatch(commands=[message(kind) for kind in PAYLOADS]).SerializeToString()
    found = read_batch(data)
    assert len(found) == len(PAYLOADS)
    for submission in found:
        await check(method, submission)


async def test_commands_of_a_decision() -> None:
    """Their decision is known again, and that their request ids were left to it is no fault."""
    commands = [message("seed", request_id=""), message("cull")]
    data = PolicyDecision(decision_id="d-9", commands=commands).SerializeToString()
    for submission in read_decision(data):
        command = await check(DECISION_STREAM, submission)
        assert command.decision_id == "d-9"


def test_a_stop_of_the_run() -> None:
    """StopRun's payload is no AdaptationCommand."""
    data = run_service_pb2.StopRunPayload(request_id="r-1", reason="a test").SerializeToString()
    assert to_command(record(STOP_RUN, data)) == Command("c-1", StopCommand(), "operator", "a test")


def test_emergencies_keep_their_ids() -> None:
    """A raised one is named after its command; a cleared one is the one that was named."""
    signal = emergency_service_pb2.EmergencySignal(level=4, reason="a test", request_id="r-1")
    raised = to_command(record(RAISE_EMERGENCY, signal.SerializeToString()))
    assert raised.payload == EmergencyCommand(EmergencyLevel.HALT, "e-c-1")
    payload = emergency_service_pb2.ClearEmergencyPayload(emergency_id="e-7", reason="over", request_id="r-2")
    cleared = to_command(record(CLEAR_EMERGENCY, payload.SerializeToString()))
    assert cleared.payload == EmergencyCommand(EmergencyLevel.UNSPECIFIED, "e-7")


@pytest.mark.parametrize(
    "payload",
    [PolicyPresence(True, "tamiyo took the lease", 25), PolicyPresence(False, "gone"), KernelSwapCommand(3, "ab" * 32)],
)
def test_what_the_daemon_itself_told_the_trainer(payload: Payload) -> None:
    """Its record has a payload as well: JSON, by the name of its type."""
    data = own_payload(payload)
    assert to_command(record(DAEMON, data, type(payload).__name__, request_id="")).payload == payload


def test_a_swap_of_the_daemon_s_own_is_shown_as_one() -> None:
    """Clients see the kernel and the seed, as in a command that a client sent."""
    data = own_payload(KernelSwapCommand(3, "ab" * 32))
    request = command_message(record(DAEMON, data, "KernelSwapCommand", request_id="")).request
    assert (request.target_seed_id, request.kernel_swap.artifact_id) == ("3", "ab" * 32)


@pytest.mark.parametrize(
    "loosened",
    [
        {"reason": "r" * 5000},
        {"request_id": "x" * 500},
        {"risk": [pb.RiskVerdict(rule="loss_spike", action="shrug")] * 200},
        {"apply_at": pb.ApplyAt(global_step=2**64 - 1)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_was_accepted_under_other_rules_is_still_read(loosened: dict[str, object]) -> None:
    """The contract's rules are for what comes in: one that is tightened must not make an old journal unreadable."""
    data = message("pause", **loosened).SerializeToString()
    with pytest.raises(InvalidRequest):
        read_single(data, b"")
    assert to_command(record(SERVICE + "SubmitCommand", data)).payload == PauseCommand()


def test_every_kind_of_payload_is_covered() -> None:
    """A kind that is added to the contract must be added here."""
    tested = {type(read_single(message(kind).SerializeToString(), b"").asked.payload) for kind in PAYLOADS}
    tested |= {EmergencyCommand, PolicyPresence}
    assert tested == set(typing.get_args(Payload))


@pytest.mark.parametrize(
    ("method", "payload", "kind"),
    [
        (SERVICE + "SubmitCommand", b"\xff\xff", "seed"),
        (SERVICE + "SubmitCommand", b"", "seed"),
        (SERVICE + "SubmitCommand", pb.AdaptationCommand(run_control={"action": 9}).SerializeToString(), "pause"),
        (SERVICE + "SubmitCommand", pb.AdaptationCommand(rollback={}).SerializeToString(), "rollback"),
        (DAEMON, b"", "PolicyPresence"),
        (DAEMON, b"{}", "PolicyPresence"),
        (DAEMON, b'{"present":true,"detail":"x"}', "Nothing"),
        (RAISE_EMERGENCY, b"", "emergency"),
    ],
)
def test_bytes_that_cannot_be_read_are_an_error(method: str, payload: bytes, kind: str) -> None:
    """Never a guess: the command is named."""
    with pytest.raises(EsperdError, match="c-1") as caught:
        to_command(record(method, payload, kind))
    assert caught.value.reason == "JOURNAL_UNREADABLE"
