"""`write-a-policy.md` and the README's policy: what they show is what is tested, and every command in them works."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import Unreachable
from esper.leyline.v1.state_service_pb2 import DeliveryPolicy
from esper.leyline.v1.vocabulary_pb2 import LeaseMode

from esperd.leyline.errors import CATALOGUE
from tests.interop.policy_process import running
from tests.interop.toolchains import ROOT, require

DOCUMENT = ROOT / "esperd" / "docs" / "write-a-policy.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(DOCUMENT.read_text())
COMMANDS = [block for language, block in BLOCKS if language == "sh"]
SHOWN = {
    "python": ("esperd/examples/policy_in_python.py", "clients/esper/client/signing.py"),
    "js": ("clients/node/leyline.mjs", "clients/node/policy.mjs"),
    "cpp": ("clients/cpp/leyline.h", "clients/cpp/policy.cc"),
}
VECTORS = json.loads((ROOT / "protos" / "vectors" / "signing.json").read_text())["vectors"]
SHELL_SIGNER = next(block for block in COMMANDS if "openssl dgst" in block)
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
START_S = 60.0


def test_what_is_shown_is_what_is_tested() -> None:
    """Every piece of code is a piece of the files that the tests run, word for word."""
    shown = [(language, block) for language, block in BLOCKS if language != "sh"]
    assert {language for language, _ in shown} == set(SHOWN)
    for language, block in shown:
        assert any(block in (ROOT / path).read_text() for path in SHOWN[language]), block


def test_every_reason_that_is_named_is_in_the_catalogue() -> None:
    """What a reader is told to look for can come."""
    prose = BLOCK.sub("", DOCUMENT.read_text())
    enums = {*LeaseMode.keys(), *DeliveryPolicy.keys()}
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", prose)) - enums
    assert len(named) > 10
    assert named <= set(CATALOGUE)


def test_the_readme_shows_the_policy_in_python() -> None:
    """The whole file, word for word."""
    policy = (ROOT / "esperd" / "examples" / "policy_in_python.py").read_text()
    assert f"```python\n{policy}```" in (ROOT / "README.md").read_text()


def test_the_shell_signs_every_genuine_vector() -> None:
    """The document's lines of bash and openssl, with the key, header and payload of each vector."""
    require("bash", "openssl")
    lines = SHELL_SIGNER.splitlines()
    assert [line.partition("=")[0] for line in lines[:3]] == ["key", "header", "payload"]
    signer = "\n".join(lines[3:])
    first = VECTORS[0]
    assert lines[:3] == [f"{part}={first[f'{part}_hex']}" for part in ("key", "header", "payload")]
    assert first["signature_hex"] in DOCUMENT.read_text()
    for vector in VECTORS:
        if vector["expected"] in ("SIGNATURE_INVALID", "SIGNATURE_MISSING"):
            continue
        given = {part: vector[f"{part}_hex"] for part in ("key", "header", "payload")}
        done = subprocess.run(["bash", "-euc", signer], env={**os.environ, **given}, capture_output=True, text=True)
        assert done.stdout.split()[-1] == vector["signature_hex"], (vector["name"], done.stderr)


@pytest.mark.timeout(600)  # it may be the first to build the clients
async def test_every_command_works(folder: Path, workshop: Path, node_client: Path, cpp_client: Path) -> None:
    """In order, in one folder: the daemon goes on, each policy steers until the next one, the last leaves with it."""
    require("bash", "openssl")
    assert {node_client.parent, cpp_client.parent} == {workshop / "clients"}
    for name in ("clients", "protos", "esperd"):
        (folder / name).symlink_to(workshop / name)
    policies = [block for block in COMMANDS if "leyline.sock" in block]
    serve = next(block for block in COMMANDS if block.startswith("esperd serve "))
    others = [block for block in COMMANDS if block not in (*policies, serve)]
    assert len(policies) == 3
    assert len(others) == 3
    run(others[0], folder)
    async with running(*in_shell(serve), folder=folder) as daemon:
        await until_served(f"unix:{folder}/my-run/run/leyline.sock")
        for block in policies:
            *preparations, policy = block.splitlines()
            run("\n".join(preparations), folder)
            async with running(*in_shell(policy), folder=folder) as process:
                await process.until("session LEASE_MODE_STEER")
                if block == policies[-1]:
                    daemon.process.terminate()
                    assert await process.end() == 0
        assert await daemon.end() == 0
    for block in others[1:]:
        run(block, folder)


def run(block: str, folder: Path) -> None:
    """Run commands to their end."""
    command = ["bash", "-euo", "pipefail", "-c", block]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": PATH}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def in_shell(line: str) -> list[str]:
    """A command that goes on until it is ended; the shell makes way for it."""
    return ["env", f"PATH={PATH}", "bash", "-c", f"exec {line.strip()}"]


async def until_served(address: str) -> None:
    """Wait until the daemon answers."""
    async with asyncio.timeout(START_S), AsyncClient(address) as client:
        while True:
            try:
                await client.server_info()
                return
            except Unreachable:
                await asyncio.sleep(0.05)
