"""Killing, stopping or corrupting the policy costs training nothing: not one step, not one bit.

A real daemon trains the recorded task, a real policy process steers it without ever wanting to grow, and something
happens to that process. Whatever it is, every step's weights, buffers and loss must be those of the plain loop; the
run is conservative while no policy steers, and open again as soon as one does.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, decode_rpc_error
from esper.client.signing import sign
from esper.leyline.v1 import policy_service_pb2
from esper.leyline.v1.command_pb2 import COMMAND_TYPE_SEED, AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.run_service_pb2 import GetRunResponse
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_REJECTED,
    EMERGENCY_LEVEL_CONSERVATIVE,
    LEASE_MODE_STEER,
    SEED_OPERATION_GERMINATE,
    TRAINER_PHASE_FINISHED,
    TRAINER_PHASE_TRAINING,
)

from esperd.cli.keys import make_key_pair
from tests.integration import recorded
from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase
from tests.integration.trajectory import RECORDED, lay_out_recorded_task, recorded_lines

WAIT_S = 60.0
DECISION_STREAM = "/esper.leyline.v1.PolicyService/DecisionStream"
STEERED = (
    *RECORDED,
    "run.task_options.step_s=0.002",
    "policy.required=true",
    "policy.packet_every_steps=10",
    "budgets.policy_answer_s=0.5",
    "budgets.missed_deadlines=2",
)


class PolicyProcess:
    """A real `esper tamiyo run`: the heuristic, which decides on every packet and turns every round into waiting."""

    def __init__(self, daemon: DaemonProcess, key_file: Path) -> None:
        self.log_path = daemon.folder / "policy.log"
        arguments = ["--policy", "heuristic", "--hold-out", "1", "--packet-every", "10", "--address", daemon.address]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from esper.cli import main; main()", "tamiyo", "run", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "ESPER_KEY": str(key_file), "ESPER_STATE_DIR": str(daemon.folder / "policy")},
            )

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it, whatever it takes; SIGKILL ends a stopped process too."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


StartPolicy = Callable[[DaemonProcess], PolicyProcess]


@pytest.fixture
def policy_key(folder: Path) -> Path:
    """The policy's own key file; the ring is there before the daemon starts."""
    key_file = folder / "policy.toml"
    ring = folder / "run" / "keys.toml"
    make_key_pair("policy", ("observe", "command"), ring, key_file, "", now_unix_s=time.time() - 1)
    return key_file


@pytest.fixture
def start_policy(policy_key: Path) -> Iterator[StartPolicy]:
    """Starts policies; all are ended with the test, and show their log if it failed."""
    started: list[PolicyProcess] = []

    def start(daemon: DaemonProcess) -> PolicyProcess:
        started.append(PolicyProcess(daemon, policy_key))
        return started[-1]

    yield start
    for policy in started:
        policy.stop()
    for log_path in {policy.log_path for policy in started}:
        print(log_path.read_text())


async def test_sigkill(start_daemon: StartDaemon, start_policy: StartPolicy, folder: Path) -> None:
    """A killed policy is noticed at once; a new process takes its place."""
    async with disturbed_run(start_daemon, folder) as (daemon, client):
        await until_conservative(client)  # [policy] required: none has come yet
        policy = start_policy(daemon)
        await until_steered(client, "policy")
        policy.send(signal.SIGKILL)
        await until_conservative(client)
        await assert_steps_go_on(client)
        await assert_no_seed_may_grow(client)
        start_policy(daemon)
        await until_steered(client, "policy")
        await assert_a_seed_may_grow(client)


async def test_sigstop(start_daemon: StartDaemon, start_policy: StartPolicy, folder: Path) -> None:
    """A stopped policy misses its deadlines and loses the lease; continued, it steers again by itself."""
    async with disturbed_run(start_daemon, folder) as (daemon, client):
        policy = start_policy(daemon)
        await until_steered(client, "policy")
        policy.send(signal.SIGSTOP)
        await until_conservative(client)
        await assert_steps_go_on(client)
        await assert_no_seed_may_grow(client)
        policy.send(signal.SIGCONT)
        await until_steered(client, "policy")
        policy.send(signal.SIGSTOP)
        await until_conservative(client)
        start_policy(daemon)  # another process, while the old one's session is still open
        await until_steered(client, "policy")
        policy.send(signal.SIGCONT)
        await assert_a_seed_may_grow(client)


async def test_garbage(start_daemon: StartDaemon, start_policy: StartPolicy, policy_key: Path, folder: Path) -> None:
    """Bytes that are no message, payloads that are no decision, wrong signatures, decisions that make no sense."""
    async with disturbed_run(start_daemon, folder) as (daemon, client):
        reasons = {}
        for spoil in (no_message, no_decision, wrong_signature, unsigned):
            reasons[spoil.__name__] = await answer_with(client, daemon, policy_key, spoil)
            await until_conservative(client)
        assert reasons == {
            "no_message": "REQUEST_INVALID",
            "no_decision": "COMMAND_INVALID",
            "wrong_signature": "SIGNATURE_INVALID",
            "unsigned": "SIGNATURE_MISSING",
        }
        await send_invalid_decisions_until_the_lease_is_lost(client, daemon, policy_key)
        await until_conservative(client)
        await assert_steps_go_on(client)
        await assert_no_seed_may_grow(client)
        start_policy(daemon)
        await until_steered(client, "policy")


@asynccontextmanager
async def disturbed_run(start_daemon: StartDaemon, folder: Path) -> AsyncIterator[tuple[DaemonProcess, AsyncClient]]:
    """A run for something to happen to; afterwards not one bit of it may differ from the plain loop's."""
    lay_out_recorded_task(folder)
    daemon = start_daemon(*STEERED, task="recorded:build")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        yield daemon, client
        await client.stop_run("the test is over")
        run = (await until_phase(client, TRAINER_PHASE_FINISHED)).run
        assert not (await client.seeds()).seeds
    lines = recorded_lines(folder)
    assert len(lines) == run.global_step > 100
    assert lines == recorded.bare_trajectory(run.global_step)


async def until(client: AsyncClient, holds: Callable[[GetRunResponse], bool]) -> GetRunResponse:
    """Look at the run until this holds."""
    deadline_s = time.monotonic() + WAIT_S
    while not holds(answer := await client.run()):
        assert time.monotonic() < deadline_s, answer
        await asyncio.sleep(0.02)
    return answer


async def until_conservative(client: AsyncClient) -> None:
    """Nobody steers, and the trainer knows it."""
    answer = await until(
        client,
        lambda now: now.run.emergency_level == EMERGENCY_LEVEL_CONSERVATIVE and not now.lease_principal,
    )
    assert [emergency.origin for emergency in answer.emergencies if emergency.level >= 3] == ["policy"]


async def until_steered(client: AsyncClient, principal: str) -> None:
    """Somebody steers, and the trainer knows it."""
    await until(
        client,
        lambda now: now.run.emergency_level < EMERGENCY_LEVEL_CONSERVATIVE and now.lease_principal == principal,
    )


async def assert_steps_go_on(client: AsyncClient) -> None:
    """Training makes steps while nobody steers."""
    before = (await client.run()).run
    assert before.phase == TRAINER_PHASE_TRAINING
    await until(client, lambda now: now.run.global_step >= before.global_step + 50)


def germination() -> AdaptationCommand:
    operation = CommandSeedOperation(
        operation=SEED_OPERATION_GERMINATE, site=recorded.SITE, blueprint_id="residual_mlp"
    )
    return AdaptationCommand(command_type=COMMAND_TYPE_SEED, reason="a test", seed_operation=operation)


async def assert_no_seed_may_grow(client: AsyncClient) -> None:
    """A germination is refused by its reason, whoever asks."""
    try:
        command = await client.submit(germination(), wait=True)
        assert command.state == COMMAND_STATE_REJECTED
        reason = command.error.reason
    except LeylineError as error:
        reason = error.reason
    assert reason == "RUN_CONSERVATIVE"
    assert not (await client.seeds()).seeds


async def assert_a_seed_may_grow(client: AsyncClient) -> None:
    """The same germination would be accepted now; it is only asked, for a seed would draw the policy's attention."""
    command = germination()
    command.validate_only = True
    await client.submit(command)


# A policy that sends rubbish

Spoil = Callable[[policy_service_pb2.DecisionStreamRequest], bytes]


def no_message(request: policy_service_pb2.DecisionStreamRequest) -> bytes:
    return b"\xff\xff\xff garbage"


def no_decision(request: policy_service_pb2.DecisionStreamRequest) -> bytes:
    return request.SerializeToString()  # signed rightly, over a payload that is none


def wrong_signature(request: policy_service_pb2.DecisionStreamRequest) -> bytes:
    request.envelope.signature = bytes(32)
    return request.SerializeToString()


def unsigned(request: policy_service_pb2.DecisionStreamRequest) -> bytes:
    request.envelope.ClearField("signature")
    return request.SerializeToString()


class RawSession:
    """A steering session without the SDK's care: sends whatever bytes it is given."""

    def __init__(self, call: grpc.aio.StreamStreamCall, envelope: Callable[[bytes], bytes]) -> None:
        self.call, self.envelope = call, envelope

    async def read(self) -> policy_service_pb2.DecisionStreamResponse | None:
        data = await self.call.read()
        return None if data is grpc.aio.EOF else policy_service_pb2.DecisionStreamResponse.FromString(data)

    async def read_to_the_end(self) -> None:
        while await self.read() is not None:
            pass


@asynccontextmanager
async def raw_session(client: AsyncClient, daemon: DaemonProcess, key_file: Path) -> AsyncIterator[RawSession]:
    info = await client.server_info()
    credentials = Credentials.load(key_file)

    def envelope(payload: bytes) -> bytes:
        signed = sign(
            credentials,
            audience=info.server_id,
            epoch=info.epoch,
            method=DECISION_STREAM,
            payload=payload,
            now=time.time(),
            nonce=os.urandom(16),
        )
        return policy_service_pb2.DecisionStreamRequest(envelope=signed).SerializeToString()

    async with grpc.aio.insecure_channel(daemon.address) as channel:
        call = channel.stream_stream(DECISION_STREAM)()
        session = RawSession(call, envelope)
        opening = policy_service_pb2.SessionOpening(mode=LEASE_MODE_STEER, policy_name="rubbish")
        await call.write(envelope(opening.SerializeToString()))
        opened = await session.read()
        assert opened is not None
        assert opened.HasField("opened")
        await until_steered(client, "policy")
        yield session
        call.cancel()


async def answer_with(client: AsyncClient, daemon: DaemonProcess, key_file: Path, spoil: Spoil) -> str:
    """Answer the first packet with rubbish; returns how the daemon ended the session."""
    async with raw_session(client, daemon, key_file) as session:
        signed = policy_service_pb2.DecisionStreamRequest.FromString(session.envelope(b"\xff\xff\xff"))
        await session.call.write(spoil(signed))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await session.read_to_the_end()
        return decode_rpc_error(caught.value, daemon.address).reason


async def send_invalid_decisions_until_the_lease_is_lost(
    client: AsyncClient, daemon: DaemonProcess, key_file: Path
) -> None:
    """Well signed, well formed, and senseless: each is told so, and together they cost the lease."""
    async with raw_session(client, daemon, key_file) as session:
        num_refused = 0
        while (await client.run()).lease_principal:
            response = await session.read()
            assert response is not None
            if response.WhichOneof("content") == "receipt":
                assert response.receipt.error.reason
                num_refused += 1
            elif response.WhichOneof("content") == "request":
                senseless = AdaptationCommand(request_id=os.urandom(8).hex(), command_type=COMMAND_TYPE_SEED)
                decision = policy_service_pb2.PolicyDecision(
                    decision_id=response.request.decision_id, commands=[senseless]
                )
                await session.call.write(session.envelope(decision.SerializeToString()))
        assert num_refused >= 1
