"""What the validator's process can still read: tried out in small processes that lose their sight the same way."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import os, pathlib, sys, threading
from esperd.urabrask.worker.sight import hide_files
own, secret = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
if not hide_files(own):
    os.write(1, b"no Landlock")
    sys.exit(0)
"""


def tried(tmp_path: Path, body: str) -> str:
    """What a few lines print that run after files were hidden."""
    own, secret = tmp_path / "own", tmp_path / "validator.key"
    own.mkdir()
    (own / "copy").write_text("mine")
    secret.write_text("theirs")
    done = subprocess.run(
        [sys.executable, "-B", "-c", HEAD + body, str(own), str(secret)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.stdout == "no Landlock":
        pytest.skip("this system has no Landlock")
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "secret.read_text()",
        "os.listdir(secret.parent)",
        "secret.write_text('mine')",
        "os.open(secret, os.O_WRONLY | os.O_TRUNC)",
        "open(f'/proc/{os.getppid()}/mem', 'rb')",
    ],
)
def test_what_is_the_daemons_is_out_of_sight(tmp_path: Path, body: str) -> None:
    """Its files and its memory, though they are of the same user."""
    assert "PermissionError" in tried(tmp_path, body)


@pytest.mark.parametrize(
    "body",
    [
        "print((own / 'copy').read_text(), end='')",
        "(own / 'new').write_text('x'); print('mine', file=open('/dev/stdout', 'w'), end='')",
        "import sqlite3, decimal, json.tool; print('mine', end='')",
        "open('/proc/self/statm').read(); print('mine', end='')",
    ],
)
def test_what_it_needs_it_sees(tmp_path: Path, body: str) -> None:
    """Its own copies, Python's modules, and what the system says of itself."""
    assert tried(tmp_path, body) == "mine"


def test_threads_that_it_starts_see_no_more(tmp_path: Path) -> None:
    """A library may start one."""
    body = "thread = threading.Thread(target=secret.read_text); thread.start(); thread.join()"
    assert "PermissionError" in tried(tmp_path, body)
