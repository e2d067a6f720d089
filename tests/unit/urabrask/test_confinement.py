"""What the validator's process denies itself: tried out in small processes that lose it the same way."""

import platform
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no rules for this machine")
HEAD = """
import ctypes, os, platform, resource, signal, socket, subprocess, sys, threading

def queue_signal(pid):
    number = {"x86_64": 129, "aarch64": 138}[platform.machine()]
    ctypes.CDLL(None).syscall(number, pid, 0, ctypes.create_string_buffer(128))

from esperd.urabrask.worker.confinement import confine, limit
"""


def confined(body: str, *, on_cuda: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a few lines after the system calls are given up."""
    program = f"{HEAD}assert confine(on_cuda={on_cuda}) == ''\n{body}\nos.write(1, b'went on')"
    return subprocess.run(
        [sys.executable, "-B", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "body",
    [
        "socket.socket()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['/bin/true'])",
        "open('/tmp/left-behind', 'w')",
        "open('/dev/null', 'r+')",
        "os.mkdir('/tmp/left-behind')",
        "os.unlink('/tmp/nothing-like-it')",
        "os.kill(os.getppid(), 0)",
        "queue_signal(os.getppid())",
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU)",
        "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "os.setxattr('/tmp', 'user.left', b'behind', follow_symlinks=False)",
        "os.memfd_create('x')",
        "thread = threading.Thread(target=socket.socket); thread.start(); thread.join()",
    ],
)
def test_what_no_kernel_does_is_the_end(body: str) -> None:
    """The kernel of the system kills whoever tries, in whichever thread."""
    done = confined(body)
    assert done.returncode == -signal.SIGSYS
    assert "went on" not in done.stdout


@pytest.mark.parametrize(
    "body",
    [
        "thread = threading.Thread(target=int); thread.start(); thread.join()",
        "open('/proc/self/stat').read()",
        "bytearray(1 << 26)",
        "import sqlite3, decimal",
        "print(os.listdir('/'))",
        "print(resource.prlimit(0, resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_STACK))",
    ],
)
def test_what_computing_needs_goes_on(body: str) -> None:
    """Threads, memory, reading files and loading modules."""
    done = confined(body)
    assert (done.returncode, done.stdout[-7:]) == (0, "went on"), done.stderr


def test_a_process_may_end_itself() -> None:
    """As the C library does when memory is found broken: the report then names that signal."""
    assert confined("os.abort()").returncode == -signal.SIGABRT


def test_the_driver_of_a_gpu_may_write_to_its_devices() -> None:
    """With one, opening for writing is left; the network is not."""
    assert confined("open('/dev/null', 'w')", on_cuda=True).returncode == 0
    assert confined("socket.socket()", on_cuda=True).returncode == -signal.SIGSYS


def test_limits_hold() -> None:
    """Memory, files and core dumps are bounded, and the processor's time."""
    body = (
        "limit(1 << 30, 5.0, on_cuda=False)\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
        "assert resource.getrlimit(resource.RLIMIT_CPU) == (6, 6)\n"
        "assert open('/proc/self/oom_score_adj').read() == '1000\\n'\n"
        "try:\n    bytearray(2 << 30)\nexcept MemoryError:\n    os.write(1, b'bounded ')"
    )
    program = f"{HEAD}{body}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "bounded ")
