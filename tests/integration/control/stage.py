"""A whole control plane for tests: real server, verifier, journal and bridge; the trainer is a scripted thread.

The scripted trainer stands where the training thread stands: it empties the box at its safe points, settles every
command, and publishes snapshots. It knows no torch; what a command does to the state is a line of Python.
"""

import asyncio
import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from click.testing import CliRunner, Result
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError
from esper.client.signing import sign
from esper.ctl.main import main
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1 import envelope_pb2

from esperd.bridge.bridge import Bridge
from esperd.config.settings import BudgetSettings, ControlSettings, KernelSettings, RunSettings, Settings
from esperd.control.identity import ServerIdentity
from esperd.control.kernel_parts import KernelKeeping
from esperd.control.parts import Surroundings
from esperd.control.run_history import run_started
from esperd.control.server import ControlServer
from esperd.leyline.commands import (
    Command,
    EmergencyCommand,
    KernelSwapCommand,
    Outcome,
    PauseCommand,
    PolicyPresence,
    SeedCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelClosed, KernelLoaded, KernelOrder
from esperd.leyline.private_files import write_private_text
from esperd.leyline.verify import Verifier
from esperd.leyline.views import (
    BlueprintOffer,
    BreakerView,
    Cost,
    EmergencyView,
    OptimizerGroupView,
    RunView,
    SeedView,
    SiteView,
    Snapshot,
    StatePacket,
    TransitionEvent,
)
from esperd.leyline.vocabulary import (
    BlendMode,
    BlueprintTier,
    BreakerState,
    CommandState,
    Isolation,
    Operation,
    Stage,
    TrainerPhase,
    TrainingMode,
)
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.records import CommandRecord
from esperd.oona.sqlite_journal import SqliteJournal
from tests.supervision import RecordingSupervisor, open_keys

COST = Cost(100, 1000, 2000, 400)
SECRETS = {
    name: secrets.token_bytes(32) for name in ("admin", "operator", "policy", "rival", "reader", "compiler", "old")
}
RING = "".join(
    f'[[keys]]\nid = "{name}-1"\nprincipal = "{name}"\npermissions = {permissions}\nsecret = "{SECRETS[name].hex()}"\n'
    f'state = "{state}"\n'
    for name, permissions, state in (
        ("admin", '["observe", "operate", "admin"]', "active"),
        ("operator", '["observe", "command", "emergency", "operate"]', "active"),
        ("policy", '["observe", "command"]', "active"),
        ("rival", '["observe", "command"]', "active"),
        ("reader", '["observe"]', "active"),
        ("compiler", '["observe", "compile"]', "active"),
        ("old", '["observe", "command"]', "revoked"),
    )
)
SUBMIT = "/esper.leyline.v1.CommandService/SubmitCommand"


def first_snapshot(phase: TrainerPhase = TrainerPhase.PAUSED) -> Snapshot:
    """A run with two sites and one seed that learns."""
    offers = (BlueprintOffer("bottleneck", BlueprintTier.SAFE, 0.25, COST),)
    site = SiteView("block.1", "Conv2d", (8, 16, 4, 4), "float32", True, 0, (), 0, 0.0, offers)
    run = RunView("run-1", "digits", phase, 100, 2, 1000, 0.5, 0.6, {"accuracy": 0.9}, started_unix_s=1.8e9)
    seed = SeedView(
        1,
        "block.2",
        "bottleneck",
        Stage.TRAINING,
        90,
        80,
        0.0,
        1.0,
        BlendMode.BERNOULLI,
        TrainingMode.GRADIENT_MATCHING,
        Isolation.DEFAULT,
        False,
        COST,
    )
    return Snapshot(
        5,
        run,
        (seed,),
        (site, replace(site, site="block.2", vacant=False, live_seed_ids=(1,))),
        (OptimizerGroupView("host", "Adam", 1000, 10, {"lr": 0.001}),),
        (),
        (BreakerView("isolation", BreakerState.CLOSED, 0),),
    )


class ScriptedTrainer:
    """The training side of the bridge: safe points without training."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.snapshot = bridge.snapshot()
        self.applied: list[Command] = []
        self.presences: list[PolicyPresence] = []
        self.is_stuck = threading.Event()
        """While set no safe point comes."""
        self._held: list[Command] = []
        self.holds_commands = False
        """While True commands wait, as those with a later apply_at do."""
        self._jobs: list[Callable[[], None]] = []
        self._has_left = False
        self._thread = threading.Thread(target=self._run, name="scripted trainer")
        self._loader = threading.Thread(target=self._load_kernels, name="scripted kernel loader")
        self.orders: list[KernelOrder] = []
        self.unloadable: dict[str, str] = {}
        """Why a kernel cannot be opened, by artifact id: reason of the catalogue."""
        self.load_ms = 2.0

    def start(self) -> None:
        self._thread.start()
        self._loader.start()

    def stop(self) -> None:
        self._has_left = True
        self.bridge.request_stop()
        self.bridge.kernel_orders.end()
        self._thread.join(10)
        self._loader.join(10)

    def at_safe_point(self, job: Callable[[], None]) -> None:
        """Have a job done on the training side."""
        self._jobs.append(job)
        self.bridge.box.wake()

    def publish(self, **changes: Any) -> None:
        """Publish the next revision (training side only)."""
        self.snapshot = replace(self.snapshot, revision=self.snapshot.revision + 1, **changes)
        self.bridge.publish(self.snapshot)

    def packet(self, number: int, reason: str = "epoch_end") -> None:
        """Send a state packet."""
        packet = StatePacket(self.snapshot, number, reason, 0.5, 1.8e9)
        self.at_safe_point(lambda: self.bridge.record(packet))

    def _run(self) -> None:
        while not self._has_left:
            if self.is_stuck.is_set():
                time.sleep(0.002)
                continue
            self._safe_point()
            self.bridge.box.wait(0.02)
        self.bridge.close("STOPPING", self._held)

    def _load_kernels(self) -> None:
        while (order := self.bridge.kernel_orders.next_to_open()) is not None:
            self.orders.append(order)
            reason = self.unloadable.get(order.artifact_id, "")
            detail = f"{reason} it is" if reason else ""
            self.bridge.record(KernelLoaded(order.artifact_id, reason, detail, self.load_ms, 1.0, 500_000))

    def _swap(self, command: KernelSwapCommand) -> None:
        """As the executor does: the seed's view tells what it computes by."""
        is_eager = not command.artifact_id
        seeds = [
            replace(seed, kernel_artifact_id=command.artifact_id, refuses_kernels=is_eager)
            if seed.seed_id == command.seed_id
            else seed
            for seed in self.snapshot.seeds
        ]
        self.publish(seeds=tuple(seeds))

    def _safe_point(self) -> None:
        for artifact_id in self.bridge.kernel_orders.take_to_close():
            self.bridge.record(KernelClosed(artifact_id, "asked"))
        while self._jobs:
            self._jobs.pop(0)()
        cancelled = self.bridge.take_cancellations()
        waiting = self._held + self.bridge.box.take()
        self._held = []
        for command in waiting:
            if command.command_id in cancelled:
                refusal = EsperdError("COMMAND_CANCELLED").refusal()
                self._settle(command, CommandState.CANCELLED, refusal)
            elif self.holds_commands and not isinstance(command.payload, EmergencyCommand | PolicyPresence):
                self._held.append(command)
            else:
                self._apply(command)

    def _apply(self, command: Command) -> None:
        self.applied.append(command)
        seed_id = 0
        match command.payload:
            case PolicyPresence():
                self.presences.append(command.payload)
            case EmergencyCommand(level, emergency_id):
                kept = tuple(view for view in self.snapshot.emergencies if view.emergency_id != emergency_id)
                raised = EmergencyView(emergency_id, level, command.reason, command.principal, 100, 1.8e9)
                self.publish(emergencies=(*kept, raised) if level else kept)
            case SeedCommand(Operation.GERMINATE):
                seed_id = 1 + max(seed.seed_id for seed in self.snapshot.seeds)
                seed = replace(self.snapshot.seeds[0], seed_id=seed_id, site=command.payload.site)
                self.publish(seeds=(*self.snapshot.seeds, seed))
                event = TransitionEvent(
                    seed_id,
                    seed.site,
                    "bottleneck",
                    Stage.DORMANT,
                    Stage.GERMINATED,
                    100,
                    self.snapshot.revision,
                    command.command_id,
                    None,
                    1.8e9,
                )
                self.bridge.record(event)
            case KernelSwapCommand():
                self._swap(command.payload)
            case PauseCommand():
                self.publish(run=replace(self.snapshot.run, phase=TrainerPhase.PAUSED))
        self._settle(command, CommandState.APPLIED, None, seed_id)

    def _settle(self, command: Command, state: CommandState, refusal: Any, seed_id: int = 0) -> None:
        revision = self.snapshot.revision
        self.bridge.settle(Outcome(command.command_id, state, 100, revision, refusal, seed_id))


@dataclass
class Theatre:
    """Everything that stands during one test."""

    server: ControlServer
    trainer: ScriptedTrainer
    bridge: Bridge
    journal: SqliteJournal
    verifier: Verifier
    identity: ServerIdentity
    address: str
    channel: grpc.aio.Channel
    directory: Path
    supervisor: RecordingSupervisor
    addresses: tuple[str, ...]
    """Every address that it listens on."""
    skew_s: float = 0.0
    """Added to the clock of the requests that are signed here."""

    _numbers = itertools.count(1)

    def credentials(self, name: str) -> Credentials:
        return Credentials(f"{name}-1", name, SECRETS[name], self.address)

    def envelope(
        self, method: str, payload: bytes, who: str = "operator", /, **overrides: Any
    ) -> envelope_pb2.SignedEnvelope:
        """A signed envelope, wrong in what `overrides` says."""
        facts: dict[str, Any] = {
            "audience": self.identity.server_id,
            "epoch": self.identity.epoch,
            "method": method,
            "payload": payload,
            "now": time.time() + self.skew_s,
            "nonce": secrets.token_bytes(16),
            **overrides,
        }
        return sign(self.credentials(who), **facts)

    def request_id(self) -> str:
        return f"request-{next(self._numbers)}"

    async def ctl(self, *arguments: str) -> Result:
        """`esperctl` in a thread of its own, as a process would be."""
        whole = ["-a", self.address, *arguments]
        return await asyncio.to_thread(CliRunner().invoke, main, whole, catch_exceptions=False)


async def reason_of(call: Awaitable[Any]) -> str:
    """Why a call of the SDK is refused."""
    with pytest.raises(LeylineError) as caught:
        await call
    return caught.value.reason


async def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for something that another thread or task brings about."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.005)


def fresh_command(stage: Theatre, **fields: Any) -> pb.AdaptationCommand:
    """A germination that is allowed, unless fields say otherwise."""
    if not any(name in fields for name in ("seed_operation", "run_control", "optimizer_adjustment", "circuit_breaker")):
        fields["seed_operation"] = pb.CommandSeedOperation(operation=1, blueprint_id="bottleneck", site="block.1")
    return pb.AdaptationCommand(**{"request_id": stage.request_id(), "reason": "a test", **fields})


@contextlib.asynccontextmanager
async def open_stage(
    directory: Path,
    *,
    control: ControlSettings | None = None,
    budgets: BudgetSettings | None = None,
    phase: TrainerPhase = TrainerPhase.PAUSED,
    ring: str | None = RING,
    monotonic: Callable[[], float] = time.monotonic,
    store: CheckpointStore | None = None,
    earlier: Sequence[CommandRecord] | None = None,
    settled: Sequence[Outcome] = (),
    kernels: Callable[[Verifier], KernelKeeping] | None = None,
    snapshot: Snapshot | None = None,
    kernel_settings: KernelSettings | None = None,
) -> AsyncIterator[Theatre]:
    """Build it, serve, and leave nothing behind. `earlier` and `settled` are what earlier starts of the run did.

    `kernels` makes what kernels are kept with, for the keys of the verifier; `snapshot` is the run as it begins.
    """
    settings = Settings(
        kernels=kernel_settings or KernelSettings(),
        run=RunSettings(directory=str(directory)),
        control=control or ControlSettings(),
        budgets=budgets or BudgetSettings(),
    )
    identity = ServerIdentity("esperd-test", secrets.token_bytes(16), "0.1.0", "run-1")
    bridge = Bridge(
        first_snapshot=snapshot or first_snapshot(phase), box_capacity=settings.control.command_box_capacity
    )
    journal = await SqliteJournal.open(directory / "journal.db")
    await journal.append(run_started(bridge.snapshot().run, settings, revision=5))
    await journal.accept(earlier or ())
    await journal.settle(settled, time.time())
    if ring is not None:
        write_private_text(directory / "keys.toml", ring)
    verifier, keys = open_keys(directory, identity, lambda: server.parts.note_keys())
    trainer = ScriptedTrainer(bridge)
    supervisor = RecordingSupervisor()
    around = Surroundings(
        port=bridge,
        journal=journal,
        verifier=verifier,
        identity=identity,
        supervisor=supervisor,
        keys=keys,
        clock=time.time,
        monotonic=monotonic,
        log=structlog.get_logger(),
        store=store,
        unsettled=None if earlier is None else await journal.unsettled(),
        kernels=None if kernels is None else kernels(verifier),
    )
    server = ControlServer(around, settings)
    bound = await server.start()
    trainer.start()
    try:
        async with grpc.aio.insecure_channel(bound[0]) as channel:
            yield Theatre(
                server,
                trainer,
                bridge,
                journal,
                verifier,
                identity,
                bound[0],
                channel,
                directory,
                supervisor,
                tuple(bound),
            )
    finally:
        trainer.is_stuck.clear()
        await asyncio.to_thread(trainer.stop)
        await server.drain_and_stop(2.0)
        if around.kernels is not None:
            around.kernels.library.close()
        await journal.close()
