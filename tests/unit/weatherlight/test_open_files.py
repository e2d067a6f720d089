"""Files that may be opened: enough for all connections and for the daemon itself, in a process of its own."""

import subprocess
import sys

PROGRAM = """
import resource, sys
from esperd.config.settings import ControlSettings, LogSettings
from esperd.weatherlight.log import configure_log
from esperd.weatherlight.open_files import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
control = ControlSettings(listen=("unix:/a", "127.0.0.1:0"), max_connections=500)
allow_open_files(control, configure_log(LogSettings()))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limit_after(now: int, most: int) -> tuple[int, str]:
    """The limit of a process that had these two, and what its log says."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(now), str(most)], capture_output=True, text=True, check=True, timeout=60
    )
    return int(ended.stdout), ended.stderr


def test_connections_leave_files_for_the_journal() -> None:
    """Two addresses of 500 connections and 1,024 files for all else: a lower limit is raised, without a word."""
    assert limit_after(1024, 4096) == (2024, "")


def test_a_higher_limit_stays() -> None:
    """Nothing is taken away."""
    assert limit_after(3000, 4096) == (3000, "")


def test_what_the_system_refuses_is_told() -> None:
    """As far as possible, with a warning that names both numbers."""
    limit, told = limit_after(256, 1024)
    assert limit == 1024
    assert '"limit": 1024' in told
    assert '"needed": 2024' in told
