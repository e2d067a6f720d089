"""The process of a validation: what it finds, what is heard of it, and that nothing of it is left."""

import asyncio
import sys
from pathlib import Path

import pytest

from esperd.urabrask.process import MAX_LINE_BYTES, MAX_LINES, Ending, run, signal_name

HEAD = "import json, os, signal, subprocess, sys, time\norder = json.load(sys.stdin)\n"


async def ending(folder: Path, body: str, timeout_s: float = 20.0) -> Ending:
    command = (sys.executable, "-I", "-S", "-c", HEAD + body)
    return await run({"answer": 42}, folder, timeout_s, command=command)


async def test_messages_come_in_order_and_the_order_arrives(tmp_path: Path) -> None:
    """One JSON object a line; whatever else is said is left out."""
    got = await ending(tmp_path, "print(json.dumps(order))\nprint('noise')\nprint('[1]')\nprint('{\"b\": 2}')")
    assert got.messages == ({"answer": 42}, {"b": 2})
    assert (got.status, got.is_timed_out) == (0, False)


async def test_it_finds_no_compiler_no_keys_and_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment is made for it: nothing of the daemon's that it does not need."""
    monkeypatch.setenv("ESPERD_SECRET", "seen")
    (found,) = (await ending(tmp_path, "print(json.dumps({**os.environ, 'cwd': os.getcwd()}))")).messages
    assert (found["PATH"], found["CXX"], found["AOTI_RUNTIME_CHECK_INPUTS"]) == ("", "/bin/false", "1")
    assert found["HOME"] == found["TMPDIR"] == found["cwd"] == str(tmp_path)
    assert "ESPERD_SECRET" not in found


async def test_how_it_ended_is_told(tmp_path: Path) -> None:
    """A status, a signal by its name, and the end of what it wrote to its standard error."""
    died = await ending(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    assert (died.status, died.words) == (-11, "it was ended by SIGSEGV")
    left = await ending(tmp_path, "print('why', file=sys.stderr)\nsys.exit(3)")
    assert (left.words, left.last_words) == ("it ended with status 3", "why")
    assert signal_name(250) == "signal 250"


async def test_in_time_it_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """The whole group, and what it said before still counts."""
    body = (
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        "print(json.dumps({'child': child.pid}), flush=True)\ntime.sleep(60)"
    )
    got = await ending(tmp_path, body, timeout_s=3.0)
    assert got.is_timed_out
    (message,) = got.messages
    await _has_ended(message["child"])


async def test_a_cancelled_caller_leaves_nothing_running(tmp_path: Path) -> None:
    """Cancelling is an end like any other."""
    task = asyncio.create_task(
        ending(tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _has_ended(int((tmp_path / "pid").read_text()))


async def test_a_flood_is_not_kept(tmp_path: Path) -> None:
    """Neither endless lines nor lines without end take more than their bound."""
    got = await ending(tmp_path, "while True: print('{}')", timeout_s=3.0)
    assert len(got.messages) == MAX_LINES
    long = await ending(tmp_path, f"print('x' * {3 * MAX_LINE_BYTES})\nprint('{{\"b\": 2}}')")
    assert long.messages == ({"b": 2},)


async def test_brackets_without_end_are_no_message(tmp_path: Path) -> None:
    """A line that no parser can follow is noise like any other."""
    got = await ending(tmp_path, "print('[' * 60_000)\nprint('{\"a\":' * 10_000)\nprint('{\"b\": 2}')")
    assert got.messages == ({"b": 2},)


async def test_one_that_does_not_listen_is_no_error(tmp_path: Path) -> None:
    """How it ended says more than that its order could not be given."""
    command = (sys.executable, "-I", "-S", "-c", "import os; os.close(0)")
    got = await run({"much": "x" * 2_000_000}, tmp_path, 20.0, command=command)
    assert got.status == 0


async def test_what_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    """There is no such program."""
    with pytest.raises(OSError, match="nothing-like-it"):
        await run({}, tmp_path, 5.0, command=(str(tmp_path / "nothing-like-it"),))


async def _has_ended(pid: int) -> None:
    """What was killed is gone as soon as the system comes to it."""
    async with asyncio.timeout(10):
        while _is_running(pid):
            await asyncio.sleep(0.01)


def _is_running(pid: int) -> bool:
    """Whether it computes: one that has ended and was not yet seen by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
