"""A daemon process under test: started like a user would, in a folder of its own with a short name."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from click.testing import CliRunner, Result
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import Unreachable
from esper.ctl.main import main
from esper.leyline.v1.run_service_pb2 import GetRunResponse
from esper.leyline.v1.vocabulary_pb2 import TrainerPhase

from esperd.cli.keys import make_key_pair

TINY_TASK = '''
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task


def build(batch_size: int = 8) -> Task:
    """A small network on fixed numbers: quick steps, nothing to learn."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    y = x.sum(1, keepdim=True)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    data = TensorBatches(x, y, batch_size, shuffle_seed=0)
    return Task(model, torch.optim.AdamW(model.parameters()), nn.functional.mse_loss, data, TensorBatches(x, y, 64))


def slow() -> Task:
    """Steps of two seconds each."""
    return replace(build(), loss_fn=lambda output, y: time.sleep(2) or nn.functional.mse_loss(output, y))


def broken() -> Task:
    raise RuntimeError("no data today")


def fragile() -> Task:
    """A task that fails in a step for as long as there is a file `broken` beside this one."""
    task, broken = build(), Path(__file__).with_name("broken")

    def loss_fn(output, y):
        if broken.exists():
            raise RuntimeError("no power today")
        return nn.functional.mse_loss(output, y)

    return replace(task, loss_fn=loss_fn)
'''

START_S = 60.0


class DaemonProcess:
    """One `esperd serve`; `stop` must be called."""

    def __init__(
        self,
        folder: Path,
        *overrides: str,
        task: str = "tiny_task:build",
        keys: bool = True,
        new_run: bool = False,
        program: Sequence[str] = ("esperd.cli.main",),
        path: Path | None = None,
    ) -> None:
        """Start it.

        `program` is the module that is `esperd`, with what it wants before the ordinary arguments; `path` takes the
        place of PATH.
        """
        self.folder = folder
        self.address = f"unix:{folder / 'run' / 'leyline.sock'}"
        self.key_file = folder / "operator.toml"
        (folder / "tiny_task.py").write_text(TINY_TASK)
        configuration = f'[run]\ntask = "{task}"\nnum_threads = 1\ndirectory = "run"\n[growth]\nsites = ["0"]\n'
        (folder / "esperd.toml").write_text(configuration)
        if keys and not self.key_file.exists():
            permissions = ("observe", "command", "emergency", "operate", "admin")
            ring = folder / "run" / "keys.toml"
            make_key_pair("operator", permissions, ring, self.key_file, "", now_unix_s=time.time() - 1)
        arguments = [value for override in overrides for value in ("--set", override)]
        arguments += ["--new-run"] if new_run else []
        self.log_path = folder / "daemon.log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *program, "serve", str(folder / "esperd.toml"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", **({} if path is None else {"PATH": str(path)})},
            )

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_path.read_text()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        """A client that signs with the operator's key, if there is one; waits until the daemon answers."""
        credentials = Credentials.load(self.key_file) if self.key_file.exists() else None
        deadline_s = time.monotonic() + START_S
        async with AsyncClient(self.address, credentials, timeout_s=START_S) as client:
            while True:
                try:
                    await client.server_info()
                    break
                except Unreachable:
                    assert self.process.poll() is None, self.log
                    assert time.monotonic() < deadline_s
                    await asyncio.sleep(0.02)
            yield client

    async def ctl(self, *arguments: object, key: Path | None = None, code: int = 0) -> Result:
        """Type a command of esperctl beside it, with the operator's key or another, and look at its exit code."""
        whole = ["-a", self.address, "--key", str(key or self.key_file), *map(str, arguments)]
        result = await asyncio.to_thread(CliRunner().invoke, main, whole)
        assert result.exit_code == code, result.output
        return result

    async def until_logged(self, words: str) -> None:
        """Wait until it has written these words."""
        deadline_s = time.monotonic() + START_S
        while words not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline_s, self.log
            await asyncio.sleep(0.005)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; the exit status as Python tells it (negative: by that signal)."""
        return self.process.wait(START_S)

    def stop(self) -> None:
        """End it, whatever it takes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


async def until_phase(client: AsyncClient, *phases: TrainerPhase) -> GetRunResponse:
    """Look until the run is in one of these phases."""
    deadline_s = time.monotonic() + START_S
    while True:
        answer = await client.run()
        if answer.run.phase in phases:
            return answer
        assert time.monotonic() < deadline_s, f"still {TrainerPhase.Name(answer.run.phase)}"
        await asyncio.sleep(0.02)


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
