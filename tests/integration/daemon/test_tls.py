"""A real daemon over TLS whose certificates are renewed, well and badly, while clients work: no call fails."""

import asyncio
import re
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.leyline.v1.command_pb2 import RUN_ACTION_PAUSE, AdaptationCommand, CommandRunControl
from esper.leyline.v1.vocabulary_pb2 import TRAINER_PHASE_FINISHED, TRAINER_PHASE_TRAINING

from tests.certificates import Certificates
from tests.integration.control.stage import eventually
from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase

SECURITY = Path(__file__).parents[3] / "esperd/docs/security.md"
NUM_RELOADS = 20
PAUSE = AdaptationCommand(run_control=CommandRunControl(action=RUN_ACTION_PAUSE), validate_only=True)


@pytest.fixture
def made(folder: Path) -> Certificates:
    """The daemon's files `shown`, two certificates to renew it with, and a client's."""
    made = Certificates(folder / "tls")
    made.ca()
    for name in ("shown", "renewed-0", "renewed-1"):
        made.signed(name)
    made.signed("client", usage="clientAuth", names="DNS:client.example")
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


class Served:
    """A daemon that listens with TLS, and its clients."""

    def __init__(self, start_daemon: StartDaemon, made: Certificates, *settings: str) -> None:
        port = free_port()
        files = made.server("shown")
        self.made = made
        self.address = f"tls:127.0.0.1:{port}"
        self.daemon: DaemonProcess = start_daemon(
            *settings,
            f'control.listen=["unix:run/leyline.sock", "{self.address}"]',
            f"control.tls_certificate={files.certificate}",
            f"control.tls_private_key={files.private_key}",
            f"control.tls_client_ca={files.client_ca}",
        )

    def client(self) -> AsyncClient:
        """A new connection."""
        return AsyncClient(self.address, Credentials.load(self.daemon.key_file), tls=self.made.client(), timeout_s=30)


def as_the_files_say(served: Served, name: str) -> Callable[[], bool]:
    """Whether a newcomer is shown this certificate."""
    host, _, port = served.address.removeprefix("tls:").rpartition(":")
    wanted = (served.made.directory / f"{name}.pem").read_text()
    return lambda: ssl.get_server_certificate((host, int(port)), timeout=10).strip() == wanted.strip()


async def test_renewal_under_load(start_daemon: StartDaemon, made: Certificates) -> None:
    """Twenty SIGHUPs, every second one with files that do not fit together: each is told, none costs a call."""
    served = Served(start_daemon, made)
    async with served.daemon.client() as local:
        await until_phase(local, TRAINER_PHASE_TRAINING)
    num_calls, is_over = 0, False

    async def keep_calling() -> None:
        nonlocal num_calls
        async with served.client() as standing:
            watch = standing.watch_state(reconnect_s=0.0)
            await anext(watch)
            while not is_over:
                await standing.submit(PAUSE)
                async with served.client() as newcomer:
                    await newcomer.run()
                num_calls += 2
            await anext(watch)  # the stream of the first moment is still there

    callers = [asyncio.create_task(keep_calling()) for _ in range(3)]
    for number in range(NUM_RELOADS):
        name, another = (f"renewed-{(number // 2 + step) % 2}" for step in (0, 1))
        if number % 2:
            (made.directory / "shown.pem").write_bytes((made.directory / f"{another}.pem").read_bytes())
        else:
            made.install(name, "shown")
        words = "nothing has changed" if number % 2 else "the configuration was reloaded"
        num_told, before = served.daemon.log.count(words), num_calls
        served.daemon.signal(signal.SIGHUP)
        await eventually(lambda n=num_told, w=words: served.daemon.log.count(w) > n)
        await eventually(lambda n=before: num_calls > n or any(caller.done() for caller in callers))
    is_over = True
    await asyncio.gather(*callers)
    served.daemon.signal(signal.SIGTERM)
    assert served.daemon.wait() == 0


async def test_new_files_are_taken_up_unasked(start_daemon: StartDaemon, made: Certificates) -> None:
    """As a renewal by cron or cert-manager leaves them."""
    served = Served(start_daemon, made)
    async with served.daemon.client():
        made.install("renewed-0", "shown")
        is_shown = as_the_files_say(served, "renewed-0")
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(is_shown):
                await asyncio.sleep(0.1)
    assert "new connections are shown the new certificate" in served.daemon.log


def test_a_daemon_does_not_start_with_files_that_it_cannot_use(start_daemon: StartDaemon, made: Certificates) -> None:
    """It says which, and why."""
    (made.directory / "shown.key").write_bytes((made.directory / "client.key").read_bytes())
    daemon = Served(start_daemon, made).daemon
    assert daemon.wait() == 1
    assert "E-CFG-008: The TLS files cannot be used:" in daemon.log
    assert "it is not the key of the certificate" in daemon.log


async def test_a_policy_on_another_machine(start_daemon: StartDaemon, made: Certificates) -> None:
    """`esper tamiyo run` over TLS steers the run to its end."""
    served = Served(start_daemon, made, "run.num_steps=50", "run.wait_for_policy_s=60")
    files = made.client()
    async with served.daemon.client() as local:
        policy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "esper.cli", "tamiyo", "run", "-a", served.address),
            *("--key", served.daemon.key_file, "--state-dir", served.daemon.folder / "tamiyo"),
            *("--tls-ca", files.ca, "--tls-cert", files.certificate, "--tls-key", files.private_key),
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await policy.communicate()
        assert policy.returncode == 0, told.decode()
        assert (await local.run()).run.phase == TRAINER_PHASE_FINISHED
    assert b"steers run" in told


def blocks(section: str, language: str) -> list[str]:
    """The blocks of one section of esperd/docs/security.md."""
    text = SECURITY.read_text().partition(f"### {section}\n")[2].partition("\n### ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


async def test_the_documents_commands(start_daemon: StartDaemon, folder: Path) -> None:
    """What esperd/docs/security.md says about mutual TLS works as it stands there, but for place and port."""
    make, look = blocks("Mutual TLS", "sh")
    (toml,) = blocks("Mutual TLS", "toml")
    subprocess.run(["bash", "-ec", make.replace("10.0.0.5", "127.0.0.1")], cwd=folder, check=True, capture_output=True)
    control = tomllib.loads(toml)["control"]
    port = str(free_port())
    listen = control.pop("listen")[1].replace("50051", port).replace("0.0.0.0", "127.0.0.1")
    daemon = start_daemon(
        f'control.listen=["unix:run/leyline.sock", "{listen}"]', *(f"control.{key}={control[key]}" for key in control)
    )
    async with daemon.client():
        pass
    command = look.replace("10.0.0.5:50051", f"127.0.0.1:{port}")
    told = await asyncio.to_thread(subprocess.run, ["bash", "-ec", command], cwd=folder, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "tiny_task:build" in told.stdout
