"""What calls cost: the loop's processor time for each kind, and what a flood takes from training.

    python -m tests.bench.call_cost [--quick] [--json]

Server and a training thread share this process, as in the daemon; the clients are other processes. The training thread
runs a small model in plain torch, one thread. Read ratios rather than absolute figures on a busy machine.
"""

import asyncio
import multiprocessing
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc.aio
import structlog
import torch
from esper.client.credentials import Credentials
from esper.client.signing import sign
from esper.leyline.v1 import command_pb2, command_service_pb2, run_service_pb2
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub

from esperd.bridge.bridge import Bridge
from esperd.config.settings import ControlSettings, RunSettings, Settings
from esperd.control.identity import ServerIdentity
from esperd.control.server import ControlServer
from esperd.leyline.commands import Outcome
from esperd.leyline.keyring import KeyRing
from esperd.leyline.nonces import NonceStore
from esperd.leyline.verify import Verifier
from esperd.leyline.views import RunView, Snapshot
from esperd.leyline.vocabulary import CommandState, TrainerPhase
from esperd.oona.memory_journal import MemoryJournal
from tests.bench.report import AT_LEAST, Row, arguments, median_row, publish

SECRET = bytes(range(32))
"""The same in the client processes."""
SUBMIT = "/esper.leyline.v1.CommandService/SubmitCommand"
STREAM = "/esper.leyline.v1.CommandService/CommandStream"
BATCH = 64


class Trainer:
    """Trains a small model and settles commands at every step, or only settles while it is idle."""

    def __init__(self, bridge: Bridge, width: int) -> None:
        self._bridge = bridge
        self._step = training_step(width or 1)
        self._ended = False
        self.step_s: list[float] = []
        self._thread = threading.Thread(target=self._train if width else self._idle)
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._bridge.request_stop()
        self._thread.join()

    def _settle(self) -> None:
        if self._bridge.box.has_mail:
            for command in self._bridge.box.take():
                self._bridge.settle(Outcome(command.command_id, CommandState.APPLIED, 1, 1))

    def _idle(self) -> None:
        while not self._ended:
            self._settle()
            self._bridge.box.wait(0.02)

    def _train(self) -> None:
        while not self._ended:
            began_s = time.perf_counter()
            self._step()
            self._settle()
            self.step_s.append(time.perf_counter() - began_s)


def training_step(width: int) -> Callable[[], None]:
    """One step of a small model; the first one, which imports half of torch, is done."""
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x_BI, y_B = torch.randn(64, 64), torch.randint(0, 10, (64,))

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(model(x_BI), y_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    return step


class Signer:
    """Signs for the daemon under test."""

    def __init__(self, epoch: bytes) -> None:
        self._epoch = epoch
        self._credentials = Credentials("bench-1", "bench", SECRET, None)

    def envelope(self, method: str, payload: bytes) -> Any:
        return sign(
            self._credentials,
            audience="bench",
            epoch=self._epoch,
            method=method,
            payload=payload,
            now=time.time(),
            nonce=secrets.token_bytes(16),
        )


def pause(number: str) -> command_pb2.AdaptationCommand:
    control = command_pb2.CommandRunControl(action=command_pb2.RUN_ACTION_PAUSE)
    return command_pb2.AdaptationCommand(request_id=number, reason="a benchmark", run_control=control)


async def client(kind: str, address: str, epoch: bytes, seconds: float) -> int:
    """One client's load; returns how many commands or calls were answered."""
    signer, prefix, done = Signer(epoch), secrets.token_hex(4), 0
    end_s = time.monotonic() + seconds
    async with grpc.aio.insecure_channel(address) as channel:
        if kind == "stream":
            return await _stream(channel, signer, prefix, end_s)

        async def caller(number: int) -> None:
            nonlocal done
            i = 0
            while time.monotonic() < end_s:
                i += 1
                try:
                    if kind == "read":
                        await RunServiceStub(channel).GetRun(run_service_pb2.GetRunRequest(), timeout=seconds + 5)
                    else:
                        payload = pause(f"{prefix}-{number}-{i}").SerializeToString()
                        envelope = signer.envelope(SUBMIT, payload)
                        request = command_service_pb2.SubmitCommandRequest(envelope=envelope)
                        await CommandServiceStub(channel).SubmitCommand(request, timeout=seconds + 5)
                except grpc.aio.AioRpcError:
                    continue
                done += 1

        await asyncio.gather(*(caller(number) for number in range(64)))
    return done


async def _stream(channel: Any, signer: Signer, prefix: str, end_s: float) -> int:
    call = CommandServiceStub(channel).CommandStream()
    done = 0

    async def write() -> None:
        i = 0
        while time.monotonic() < end_s:
            commands = [pause(f"{prefix}-{i}-{j}") for j in range(BATCH)]
            payload = command_service_pb2.CommandBatch(commands=commands).SerializeToString()
            await call.write(command_service_pb2.CommandStreamRequest(envelope=signer.envelope(STREAM, payload)))
            i += 1
        await call.done_writing()

    writer = asyncio.ensure_future(write())
    async for answer in call:
        done += sum(receipt.state == command_pb2.Command(state=1).state for receipt in answer.receipts)
    await writer
    return done


def client_process(kind: str, address: str, epoch: bytes, seconds: float, result: Any) -> None:
    result.put(asyncio.run(client(kind, address, epoch, seconds)))


async def measure(kind: str, seconds: float, width: int, share: float) -> tuple[float, float, list[float]]:
    """(answers a second, loop's processor microseconds for each, step times) under one load."""
    epoch = secrets.token_bytes(16)
    phase = TrainerPhase.TRAINING if width else TrainerPhase.PAUSED
    run = RunView("bench", "bench", phase, 0, 0, 0, 0.0, 0.0)
    bridge = Bridge(first_snapshot=Snapshot(1, run), box_capacity=1 << 20)
    ring = KeyRing.from_text(
        f'[[keys]]\nid="bench-1"\nprincipal="bench"\npermissions=["command"]\nsecret="{SECRET.hex()}"\n'
    )
    verifier = Verifier(
        keyring=ring,
        audience="bench",
        epoch=epoch,
        wall_clock=time.time,
        monotonic=time.monotonic,
        nonces=NonceStore(per_key=1 << 22, total=1 << 22),
    )
    with tempfile.TemporaryDirectory(prefix="esper-") as directory:
        server = ControlServer(
            port=bridge,
            journal=MemoryJournal(),
            verifier=verifier,
            settings=replace(
                Settings(), run=RunSettings(directory=directory), control=ControlSettings(training_share=share)
            ),
            identity=ServerIdentity("bench", epoch, "0", "bench"),
            clock=time.time,
            monotonic=time.monotonic,
            log=structlog.get_logger(),
        )
        (address,) = await server.start()
        trainer = Trainer(bridge, width)
        try:
            return await _load(kind, address, epoch, seconds, trainer)
        finally:
            await asyncio.to_thread(trainer.stop)
            await server.drain_and_stop(1.0)


async def _load(
    kind: str, address: str, epoch: bytes, seconds: float, trainer: Trainer
) -> tuple[float, float, list[float]]:
    if kind == "none":
        await asyncio.sleep(seconds)
        return 0.0, 0.0, trainer.step_s
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=client_process, args=(kind, address, epoch, seconds, result))
    process.start()
    await asyncio.sleep(1.5)  # the other process starts
    first, cpu_s = len(trainer.step_s), time.thread_time()
    answered = await asyncio.to_thread(result.get, True, seconds + 60)
    cpu_s = time.thread_time() - cpu_s
    steps = trainer.step_s[first:]
    await asyncio.to_thread(process.join)
    return answered / seconds, cpu_s / max(1, answered) * 1e6, steps


def main() -> None:
    """Run every load and print."""
    options = arguments("What calls cost.").parse_args()
    seconds, rounds = (2.0, 1) if options.quick else (5.0, 3)
    rows: list[Row] = []

    def run(*facts: Any) -> tuple[float, float, list[float]]:
        return asyncio.run(measure(*facts))

    for kind, name in (("read", "unary read"), ("submit", "signed unary"), ("stream", "signed stream of 64")):
        found = [run(kind, seconds, 0, 0.1) for _ in range(rounds)]
        rows.append(median_row(f"{name}, 1 client", [rate for rate, _, _ in found], "1/s", None, AT_LEAST))
        rows.append(median_row(f"{name}, loop CPU each", [cost for _, cost, _ in found], "us"))
    for width, label in ((256, "small steps"), (8192, "larger steps")):
        ratios: dict[str, list[float]] = {}
        for _ in range(rounds):
            quiet = statistics.mean(run("none", seconds, width, 0.1)[2])
            for kind in ("read", "submit"):
                loaded = statistics.mean(run(kind, seconds, width, 0.1)[2])
                ratios.setdefault(kind, []).append(loaded / quiet)
        for kind, values in ratios.items():
            rows.append(median_row(f"{label} under a flood ({kind}), step time ratio", values, "", 1.15))
    publish(rows, as_json=options.json)


if __name__ == "__main__":
    main()
