"""No core file of the daemon, whatever the limits of whoever started it."""

import os
import subprocess
import sys

CODE = """
import ctypes, os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
from esperd.weatherlight.core_dumps import forbid_core_dumps
forbid_core_dumps()
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
sys.stdout.flush()
os.abort()
"""


def test_a_crash_leaves_no_core() -> None:
    """A process that has forbidden them is not dumpable, has a core limit of 0, and crashes without a core."""
    child = subprocess.Popen([sys.executable, "-c", CODE], stderr=subprocess.PIPE)
    assert child.stderr is not None
    with child.stderr as stderr:
        told = stderr.read()
    _, status = os.waitpid(child.pid, 0)
    child.returncode = status
    assert os.WIFSIGNALED(status), told.decode()
    assert not os.WCOREDUMP(status)
