"""A real daemon over TLS whose certificates are renewed, well and badly, while clients work: no call fails."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from esper.leyline.v1.command_pb2 import RUN_ACTION_PAUSE, AdaptationCommand, CommandRunControl
from esper.leyline.v1.vocabulary_pb2 import TRAINER_PHASE_FINISHED, TRAINER_PHASE_TRAINING

from tests.integration.control.stage import eventually
from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import free_port, until_phase
from tests.integration.daemon.tls import Tls, tls_address

SECURITY = Path(__file__).parents[3] / "esperd/docs/security.md"
NUM_RELOADS = 20
PAUSE = AdaptationCommand(run_control=CommandRunControl(action=RUN_ACTION_PAUSE), validate_only=True)


@pytest.fixture
def tls(folder: Path) -> Tls:
    """The certificates of a daemon."""
    return Tls(folder)


async def test_renewal_under_load(start_daemon: StartDaemon, tls: Tls) -> None:
    """Twenty SIGHUPs, every second one with files that do not fit together: each is told, none costs a call."""
    daemon = start_daemon(*tls.overrides)
    async with daemon.client() as local:
        await until_phase(local, TRAINER_PHASE_TRAINING)
    num_calls, is_over = 0, False

    async def keep_calling() -> None:
        nonlocal num_calls
        async with tls.client(daemon) as standing:
            watch = standing.watch_state(reconnect_s=0.0)
            await anext(watch)
            while not is_over:
                await standing.submit(PAUSE)
                async with tls.client(daemon) as newcomer:
                    await newcomer.run()
                num_calls += 2
            await anext(watch)  # the stream of the first moment is still there

    callers = [asyncio.create_task(keep_calling()) for _ in range(3)]
    for number in range(NUM_RELOADS):
        is_torn = bool(number % 2)
        name = ("one", "two")[(number // 2 + is_torn) % 2]
        if is_torn:
            tls.tear(name)
        else:
            tls.install(name)
        words = "nothing has changed" if is_torn else "the configuration was reloaded"
        num_told, before = daemon.log.count(words), num_calls
        daemon.signal(signal.SIGHUP)
        await eventually(lambda n=num_told, w=words: daemon.log.count(w) > n)
        await eventually(lambda n=before: num_calls > n or any(caller.done() for caller in callers))
    is_over = True
    await asyncio.gather(*callers)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


async def test_new_files_are_taken_up_unasked(start_daemon: StartDaemon, tls: Tls) -> None:
    """As a renewal by cron or cert-manager leaves them."""
    daemon = start_daemon(*tls.overrides)
    async with daemon.client():
        tls.install("one")
        async with asyncio.timeout(60):
            while await asyncio.to_thread(tls.shown, daemon) != tls.expected("one"):
                await asyncio.sleep(0.1)
    assert "new connections are shown the new certificate" in daemon.log


def test_a_daemon_does_not_start_with_files_that_it_cannot_use(start_daemon: StartDaemon, tls: Tls) -> None:
    """It says which, and why."""
    tls.tear("one")
    daemon = start_daemon(*tls.overrides)
    assert daemon.wait() == 1
    assert "E-CFG-008: The TLS files cannot be used:" in daemon.log
    assert "it is not the key of the certificate" in daemon.log


async def test_a_policy_on_another_machine(start_daemon: StartDaemon, tls: Tls) -> None:
    """`esper tamiyo run` over TLS steers the run to its end."""
    daemon, files = start_daemon(*tls.overrides, "run.num_steps=50", "run.wait_for_policy_s=60"), tls.files.client()
    async with daemon.client() as local:
        policy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "esper.cli", "tamiyo", "run", "-a", tls_address(daemon)),
            *("--key", daemon.key_file, "--state-dir", daemon.folder / "tamiyo"),
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
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    told = await asyncio.to_thread(
        subprocess.run, ["bash", "-ec", command], cwd=folder, env=here, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert "tiny_task:build" in told.stdout
