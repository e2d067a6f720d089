"""The process that exports: its answer, its refusal, its silence, and its end."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import structlog

from esperd.control.export_process import MAX_LINE_BYTES, ExportAnswer, ExportedFile, ExportProcess
from esperd.leyline.errors import EsperdError

HEAD = """
import json, os, sys, time
from pathlib import Path
options = sys.argv[1:]
answer = Path(options[options.index("--answer") + 1])
"""
GOOD = {
    "directory": "/somewhere",
    "files": [{"name": "model.py", "num_bytes": 3, "sha256": "ab"}],
    "how_to_load": "load it",
}


def process(body: str) -> ExportProcess:
    """Runs a small program in the place of `esperd export`."""
    command = [sys.executable, "-I", "-S", "-c", HEAD + body]
    return ExportProcess(command, structlog.stdlib.get_logger("test"))


async def refusal(exporter: ExportProcess) -> EsperdError:
    with pytest.raises(EsperdError) as caught:
        await exporter.run("t001-s1", ["--format=safetensors"])
    return caught.value


async def until(path: Path) -> str:
    """What a program has written into a file, once it has."""
    while not (path.exists() and path.read_text()):
        await asyncio.sleep(0.01)
    return path.read_text()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_answer_is_what_the_process_wrote() -> None:
    """Directory, files and how to load them; it is told the options, sees no GPU and gives way to training."""
    exporter = process(
        f"""
assert options[:2] == ["--format=safetensors", "--checkpoint=c"], options
assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
while os.getpriority(os.PRIO_PROCESS, 0) != 10:
    time.sleep(0.01)
answer.write_text({json.dumps(GOOD)!r})
"""
    )
    answer = await exporter.run("c", ["--format=safetensors", "--checkpoint=c"])
    assert answer == ExportAnswer("/somewhere", (ExportedFile("model.py", 3, "ab"),), "load it")


async def test_a_refusal_keeps_its_reason() -> None:
    """The error of the process is that of the call."""
    found = json.dumps({"reason": "EXPORT_UNSETTLED", "metadata": {"detail": "seed 3 at a is BLENDING"}})
    error = await refusal(process(f"answer.write_text({found!r}); sys.exit(1)"))
    assert error.reason == "EXPORT_UNSETTLED"
    assert "seed 3 at a is BLENDING" in error.message


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"reason": "NO_SUCH_REASON"}', '{"directory": 1}'])
async def test_without_a_whole_answer_it_has_failed(text: str) -> None:
    """EXPORT_FAILED with the exit status and its last words."""
    error = await refusal(process(f"answer.write_text({text!r}); print('first'); print('the end'); sys.exit(3)"))
    assert error.reason == "EXPORT_FAILED"
    assert "status 3" in error.message
    assert error.metadata["detail"].endswith(": the end")


async def test_a_process_that_dies_is_told() -> None:
    """Killed by the system, say for memory."""
    error = await refusal(process("os.kill(os.getpid(), 9)"))
    assert error.reason == "EXPORT_FAILED"
    assert "-9" in error.message


async def test_what_it_says_is_kept_within_bounds() -> None:
    """A flood of output, in lines or without an end, is read and dropped but for its end."""
    flood = "sys.stdout.write('x' * 3_000_000)\nfor i in range(20_000): print('line', i)\n"
    error = await refusal(process(flood + "sys.stdout.write('y' * 100_000); sys.exit(1)"))
    assert error.metadata["detail"].endswith("y" * MAX_LINE_BYTES)
    assert len(error.metadata["detail"]) < MAX_LINE_BYTES + 200


async def test_one_at_a_time(tmp_path: Path) -> None:
    """A second one is refused by the first one's name; afterwards there is room again."""
    exporter = process(
        f"""
Path({str(tmp_path / "started")!r}).write_text("yes")
while not Path({str(tmp_path / "go")!r}).exists():
    time.sleep(0.01)
answer.write_text({json.dumps(GOOD)!r})
"""
    )
    first = asyncio.create_task(exporter.run("the-first", []))
    await until(tmp_path / "started")
    error = await refusal(exporter)
    assert error.reason == "EXPORT_BUSY"
    assert "the-first" in error.message
    (tmp_path / "go").touch()
    assert (await first).directory == "/somewhere"
    assert (await exporter.run("the-next", [])).directory == "/somewhere"


STUBBORN = """
import signal
Path({path!r}).write_text(str(os.getpid()))
while True:
    time.sleep(0.01)
"""


async def test_a_caller_that_leaves_ends_it(tmp_path: Path) -> None:
    """Nobody waits for it any more: the process is gone, and another one may come."""
    exporter = process(STUBBORN.format(path=str(tmp_path / "pid")))
    call = asyncio.create_task(exporter.run("c", []))
    pid = int(await until(tmp_path / "pid"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not is_running(pid)
    assert exporter._running == ""


async def test_closing_ends_it(tmp_path: Path) -> None:
    """A daemon that leaves takes its export along; the caller reads DRAINING, later ones too."""
    exporter = process(STUBBORN.format(path=str(tmp_path / "pid")))
    call = asyncio.create_task(refusal(exporter))
    pid = int(await until(tmp_path / "pid"))
    await exporter.close()
    assert (await call).reason == "DRAINING"
    assert not is_running(pid)
    assert (await refusal(exporter)).reason == "DRAINING"


async def test_a_daemon_without_a_file_exports_nothing() -> None:
    """There is no command line that would start an export."""
    error = await refusal(ExportProcess((), structlog.stdlib.get_logger("test")))
    assert error.reason == "EXPORT_FAILED"
