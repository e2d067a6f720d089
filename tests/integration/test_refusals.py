"""What a real daemon with a real trainer refuses: each with its stated reason, and nothing changes.

The trainer stands paused before its first step with one seed in GERMINATED, so that every change of the state would be
somebody's doing. What the wire alone decides is tested in `control/`; here the trainer has its say too.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, decode_rpc_error
from esper.client.signing import sign
from esper.leyline.v1.command_pb2 import (
    AdaptationCommand,
    AlphaSchedule,
    ApplyAt,
    Command,
    CommandCircuitBreaker,
    CommandOptimizerAdjustment,
    CommandSeedOperation,
)
from esper.leyline.v1.command_service_pb2 import SubmitCommandRequest
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.envelope_pb2 import SignedEnvelope
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_APPLIED,
    COMMAND_STATE_EXPIRED,
    COMMAND_STATE_REJECTED,
    SEED_OPERATION_ADVANCE,
    SEED_OPERATION_CULL,
    SEED_OPERATION_EVALUATE,
    SEED_OPERATION_FINE_TUNE,
    SEED_OPERATION_FOSSILIZE,
    SEED_OPERATION_GERMINATE,
    SEED_OPERATION_SET_ALPHA,
    SEED_OPERATION_STABILIZE,
    SEED_OPERATION_START_GRAFTING,
    TRAINER_PHASE_PAUSED,
)

from esperd.cli.keys import make_key_pair
from tests.integration import recorded
from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase
from tests.integration.trajectory import RECORDED, lay_out_recorded_task, recorded_lines

SUBMIT = "/esper.leyline.v1.CommandService/SubmitCommand"
OTHER_SITE = "2"
PAUSED = (
    *RECORDED,
    "run.start_paused=true",
    f"growth.sites=['{recorded.SITE}', '{OTHER_SITE}']",
    "growth.max_candidates_per_site=1",
    "growth.min_dwell_steps=5",
)


@dataclass
class Stage:
    """A paused run with one seed, and a client of it."""

    daemon: DaemonProcess
    client: AsyncClient
    stub: CommandServiceStub
    seed_id: str
    before: Any = None

    async def state(self) -> tuple[Any, ...]:
        """Everything that a refused command must leave as it is."""
        client = self.client
        run = await client.run()
        seeds, sites, optimizers = await client.seeds(), await client.sites(), await client.optimizers()
        told = (run.revision, run.run.phase, run.run.global_step, run.run.emergency_level, list(run.breakers))
        return (*told, list(seeds.seeds), list(sites.sites), list(optimizers.groups))

    async def refusal(self, command: AdaptationCommand) -> tuple[str, str]:
        """How the daemon or the trainer refuses a well-signed command: reason, and who said so."""
        try:
            answer = await self.client.submit(command, wait=True)
        except LeylineError as error:
            return error.reason, error.status
        assert answer.state == COMMAND_STATE_REJECTED, answer
        assert answer.error.message.startswith("E-")
        return answer.error.reason, "REJECTED"


@asynccontextmanager
async def paused_run(start_daemon: StartDaemon, folder: Path) -> AsyncIterator[Stage]:
    lay_out_recorded_task(folder)
    daemon = start_daemon(*PAUSED, task="recorded:build")
    async with daemon.client() as client, grpc.aio.insecure_channel(daemon.address) as channel:
        await until_phase(client, TRAINER_PHASE_PAUSED)
        grown = await client.submit(germination(), wait=True)
        assert grown.state == COMMAND_STATE_APPLIED
        stage = Stage(daemon, client, CommandServiceStub(channel), grown.seed_id)
        stage.before = await stage.state()
        yield stage
        assert await stage.state() == stage.before
        assert recorded_lines(folder) == []


def of_seed(operation: int, seed_id: str = "", **fields: Any) -> AdaptationCommand:
    return AdaptationCommand(
        reason="a test",
        target_seed_id=seed_id,
        seed_operation=CommandSeedOperation(operation=operation, **fields),  # type: ignore[arg-type]  # a number of the enum
    )


def germination(site: str = recorded.SITE, blueprint_id: str = "residual_mlp", **fields: Any) -> AdaptationCommand:
    return of_seed(SEED_OPERATION_GERMINATE, site=site, blueprint_id=blueprint_id, **fields)


def adjustment(optimizer_id: str, **values: float) -> AdaptationCommand:
    change = CommandOptimizerAdjustment(optimizer_id=optimizer_id, hyperparameters=values)
    return AdaptationCommand(reason="a test", optimizer_adjustment=change)


async def test_what_the_state_does_not_allow(start_daemon: StartDaemon, folder: Path) -> None:
    """Illegal steps, unknown things, values out of range: the catalogue's reason, and the state is untouched."""
    async with paused_run(start_daemon, folder) as stage:
        seed = stage.seed_id
        alpha = AlphaSchedule(num_steps=5, target=0.5)
        breaker = CommandCircuitBreaker(name="nothing", desired_state=2)  # type: ignore[arg-type]
        stale, at_old_revision = of_seed(SEED_OPERATION_CULL, seed), (await stage.client.run()).revision - 1
        stale.expected_revision = at_old_revision
        refused = {
            "SITE_UNKNOWN": germination(site="nowhere"),
            "BLUEPRINT_UNKNOWN": germination(site=OTHER_SITE, blueprint_id="nothing"),
            "SEED_LIMIT": germination(),
            "SEED_UNKNOWN": of_seed(SEED_OPERATION_CULL, "999"),
            "SEED_NOT_BLENDING": of_seed(SEED_OPERATION_SET_ALPHA, seed, alpha=alpha),
            "SEED_DWELL": of_seed(SEED_OPERATION_ADVANCE, seed),
            "OPTIMIZER_TARGET": adjustment("seed:999", lr=0.1),
            "HYPERPARAMETER_UNKNOWN": adjustment("host", speed=1.0),
            "HYPERPARAMETER_RANGE": adjustment("host", lr=-1.0),
            "BREAKER_UNKNOWN": AdaptationCommand(reason="a test", circuit_breaker=breaker),
            "STATE_CHANGED": stale,
        }
        found = {}
        for reason, command in refused.items():
            found[reason] = (await stage.refusal(command))[0]
            assert await stage.state() == stage.before, reason
        assert found == {reason: reason for reason in refused}
        for operation in (
            SEED_OPERATION_START_GRAFTING,
            SEED_OPERATION_STABILIZE,
            SEED_OPERATION_EVALUATE,
            SEED_OPERATION_FINE_TUNE,
            SEED_OPERATION_FOSSILIZE,
        ):
            assert (await stage.refusal(of_seed(operation, seed)))[0] == "SEED_STAGE"
            assert await stage.state() == stage.before


async def test_what_is_not_genuine_fresh_addressed_or_permitted(start_daemon: StartDaemon, folder: Path) -> None:
    """Unsigned, tampered, replayed, expired, mis-addressed, from another method, unpermitted: refused, unchanged."""
    ring, reader_file = folder / "run" / "keys.toml", folder / "reader.toml"
    make_key_pair("reader", ("observe",), ring, reader_file, "", now_unix_s=time.time() - 1)
    async with paused_run(start_daemon, folder) as stage:
        info = await stage.client.server_info()
        operator, reader = Credentials.load(stage.daemon.key_file), Credentials.load(reader_file)
        stranger = Credentials("nobody-1", "nobody", os.urandom(32))

        def envelope(credentials: Credentials = operator, **changes: Any) -> SignedEnvelope:
            command = of_seed(SEED_OPERATION_CULL, stage.seed_id)
            command.request_id = os.urandom(8).hex()
            facts = {
                "audience": info.server_id,
                "epoch": info.epoch,
                "method": SUBMIT,
                "payload": command.SerializeToString(),
                "now": time.time(),
                "nonce": os.urandom(16),
            }
            return sign(credentials, **{**facts, **changes})

        tampered = envelope()
        tampered.payload = germination().SerializeToString()
        used_nonce = os.urandom(16)
        first = envelope(nonce=used_nonce, payload=validate_only(stage.seed_id))
        await stage.stub.SubmitCommand(SubmitCommandRequest(envelope=first))
        refused = {
            "unsigned": (SignedEnvelope(), "SIGNATURE_MISSING"),
            "tampered": (tampered, "SIGNATURE_INVALID"),
            "unknown key": (envelope(stranger), "SIGNATURE_INVALID"),
            "replayed": (first, "NONCE_REPLAYED"),
            "nonce used twice": (envelope(nonce=used_nonce), "NONCE_REPLAYED"),
            "old": (envelope(now=time.time() - 600), "TIMESTAMP_OUT_OF_WINDOW"),
            "from the future": (envelope(now=time.time() + 600), "TIMESTAMP_OUT_OF_WINDOW"),
            "for another daemon": (envelope(audience="esperd-other"), "AUDIENCE_MISMATCH"),
            "for another method": (envelope(method=SUBMIT + "s"), "METHOD_MISMATCH"),
            "of an earlier start": (envelope(epoch=bytes(16)), "EPOCH_STALE"),
            "unpermitted": (envelope(reader), "PERMISSION_REQUIRED"),
        }
        found = {}
        for name, (request, _) in refused.items():
            found[name] = await reason_of(stage, request)
            assert await stage.state() == stage.before, name
        assert found == {name: reason for name, (_, reason) in refused.items()}
        assert [c.seed_id for c in (await stage.client.commands()).commands] == [stage.seed_id]  # the germination


async def test_a_command_that_waited_too_long_expires(start_daemon: StartDaemon, folder: Path) -> None:
    """Accepted for a later step, its time runs out while the run stands: EXPIRED, told once, nothing done."""
    async with paused_run(start_daemon, folder) as stage:
        command = of_seed(SEED_OPERATION_CULL, stage.seed_id)
        command.apply_at.CopyFrom(ApplyAt(global_step=1000))
        command.expire_time.FromNanoseconds(int((time.time() + 0.5) * 1e9))
        settled: Command = await stage.client.submit(command, wait=True)
        assert settled.state == COMMAND_STATE_EXPIRED
        assert settled.error.reason == "COMMAND_EXPIRED"


def validate_only(seed_id: str) -> bytes:
    command = of_seed(SEED_OPERATION_CULL, seed_id)
    command.request_id, command.validate_only = os.urandom(8).hex(), True
    return command.SerializeToString()


async def reason_of(stage: Stage, envelope: SignedEnvelope) -> str:
    """Why the daemon refuses a request; empty if it does not."""
    try:
        await stage.stub.SubmitCommand(SubmitCommandRequest(envelope=envelope))
    except grpc.aio.AioRpcError as error:
        return decode_rpc_error(error, stage.daemon.address).reason
    return ""
