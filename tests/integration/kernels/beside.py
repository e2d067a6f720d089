"""A daemon that finds no compiler, real kernels for its site, and whoever brings them: for tests of the whole way.

The site of the task has activations (8, 8), batch size first. Limits of time are wide open: no test fails because
a machine is busy.
"""

import asyncio
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.kernel_pb2 import Kernel, KernelState
from esper.leyline.v1.state_pb2 import SeedState
from esper.leyline.v1.vocabulary_pb2 import COMMAND_STATE_APPLIED, SEED_OPERATION_GERMINATE, SEED_STAGE_TRAINING

from esperd.cli.keys import make_key_pair
from esperd.leyline.kernel_documents import (
    MANIFEST_DOMAIN,
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    sign_document,
    write_signature,
)
from esperd.leyline.kernels import Signature
from tests.integration.daemon.process import DaemonProcess
from tests.kernels import compiled

PATIENT_TASK = '''
import time

import torch
from torch import nn
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task


def build() -> Task:
    """A small network on noise, of which nothing can be learnt; a step takes some milliseconds."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 4, generator=generator), torch.randn(64, 1, generator=generator)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    data = TensorBatches(x, y, 8, shuffle_seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def loss_fn(output, y):
        time.sleep(0.003)
        return nn.functional.mse_loss(output, y)

    return Task(model, optimizer, loss_fn, data, TensorBatches(x, y, 64))
'''
SITE_SHAPE = (8, 8)
BLUEPRINT = "residual_mlp"
LENIENT = (
    "growth.max_seed_flops_ratio=1000.0",
    "growth.max_parameter_ratio=1000.0",
    "growth.max_training_steps=1000000",
    "kernels.max_step_ratio=1000.0",
    "kernels.max_load_ms=10000.0",
    "kernels.fetch_budget_ms=60000.0",
    "kernels.validation_steps=5",
)
PATIENCE_S = 90.0


class Beside:
    """One run directory: its daemon, as often as it is started, and its compiler's key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compiler_key = folder / "tezzeret.toml"
        self.nothing = folder / "no-compiler-here"
        self.nothing.mkdir()
        (folder / "patient_task.py").write_text(PATIENT_TASK)
        self._make_key("tezzeret", ("compile",), self.compiler_key)
        self._started: list[DaemonProcess] = []
        self._compilers: list[subprocess.Popen[bytes]] = []

    @property
    def daemon(self) -> DaemonProcess:
        """The one that was started last."""
        return self._started[-1]

    @property
    def library(self) -> Path:
        """Where the daemon keeps kernels."""
        return self.folder / "run" / "kernels" / "library"

    def start(self, *overrides: str) -> DaemonProcess:
        """Start the daemon, without a compiler on its PATH."""
        task = "patient_task:build"
        self._started.append(DaemonProcess(self.folder, *LENIENT, *overrides, task=task, path=self.nothing))
        return self.daemon

    def kill(self) -> None:
        """End the daemon with SIGKILL."""
        self.daemon.signal(signal.SIGKILL)
        self.daemon.wait()

    def end(self) -> None:
        """End the daemon in good order."""
        self.daemon.signal(signal.SIGTERM)
        assert self.daemon.wait() == 0, self.daemon.log

    def compiler(self) -> "subprocess.Popen[bytes]":
        """Start `esper tezzeret serve` beside the daemon."""
        work = self.folder / "tezzeret"
        with (self.folder / "tezzeret.log").open("ab") as log:
            command = [sys.executable, "-m", "esper.cli", "tezzeret", "serve", "--address", self.daemon.address]
            command += ["--key", str(self.compiler_key), "--work-dir", str(work)]
            self._compilers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return self._compilers[-1]

    @property
    def compiler_log(self) -> str:
        """What the compilers have told."""
        path = self.folder / "tezzeret.log"
        return path.read_text() if path.exists() else ""

    def other_key(self, name: str, *permissions: str) -> Path:
        """Another key of the daemon's ring; before the daemon starts."""
        path = self.folder / f"{name}.toml"
        self._make_key(name, permissions, path)
        return path

    def kernel(self, key: Path | None = None, blueprint_id: str = BLUEPRINT) -> Path:
        """A kernel for the site in a folder of its own, signed with a key: the compiler's, unless another is given."""
        into = self.folder / f"kernel-{len(list(self.folder.glob('kernel-*')))}"
        shutil.copytree(compiled(blueprint_id, SITE_SHAPE), into)
        sign(into, key or self.compiler_key)
        return into

    def close(self) -> None:
        """End everything that still runs."""
        for process in self._compilers:
            if process.poll() is None:
                process.terminate()
            process.wait()
        for daemon in self._started:
            daemon.stop()

    def _make_key(self, principal: str, permissions: tuple[str, ...], path: Path) -> None:
        ring = self.folder / "run" / "keys.toml"
        make_key_pair(principal, permissions, ring, path, "", now_unix_s=time.time() - 1)


def sign(folder: Path, key: Path) -> None:
    """Sign the manifest in a kernel's folder."""
    credentials = Credentials.load(key)
    manifest = (folder / MANIFEST_NAME).read_bytes()
    hmac = sign_document(credentials.secret, MANIFEST_DOMAIN, manifest)
    (folder / MANIFEST_SIGNATURE_NAME).write_bytes(write_signature(Signature(credentials.key_id, hmac)))


def id_of(folder: Path) -> str:
    """The name of the kernel in a folder."""
    return hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()


def with_a_byte_changed(path: Path) -> bytes:
    """The file's bytes, but for one in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def overwrite(path: Path, data: bytes) -> None:
    """Write into a file that may be read-only."""
    path.chmod(0o600)
    path.write_bytes(data)


async def until_kernel(client: AsyncClient, artifact_id: str, *states: "KernelState") -> Kernel:
    """Look until the kernel is in one of these states."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        kernel = (await client.kernel(artifact_id)).kernel
        if kernel.state in states:
            return kernel
        assert time.monotonic() < deadline_s, kernel
        await asyncio.sleep(0.05)


async def germinate(client: AsyncClient, blueprint_id: str = BLUEPRINT) -> str:
    """Grow a seed that stays in TRAINING; its number."""
    operation = CommandSeedOperation(
        operation=SEED_OPERATION_GERMINATE, site="0", blueprint_id=blueprint_id, auto_advance=True,
        auto_advance_until=SEED_STAGE_TRAINING,
    )  # fmt: skip
    done = await client.submit(AdaptationCommand(reason="a test", seed_operation=operation), wait=True)
    assert done.state == COMMAND_STATE_APPLIED, done
    return done.seed_id


async def until_seed(client: AsyncClient, seed_id: str, holds: Callable[[SeedState], bool]) -> SeedState:
    """Look until something is true of a seed."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        seed = (await client.seed(seed_id)).seed
        if holds(seed):
            return seed
        assert time.monotonic() < deadline_s, seed
        await asyncio.sleep(0.05)


async def compiler_modules(client: AsyncClient) -> str:
    """Those in the daemon's process that generate code, as it tells."""
    sections = (await client.diagnostics("a test")).sections
    lines = [line for section in sections for line in section.text.splitlines()]
    (line,) = [line for line in lines if line.startswith("compiler modules")]
    return line.removeprefix("compiler modules").strip()


def notices(folder: Path) -> list[dict[str, str]]:
    """Kinds and messages of the daemon's log about kernels, in order."""
    lines = [json.loads(line) for line in (folder / "daemon.log").read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if str(line.get("kind", "")).startswith("kernel.")]
