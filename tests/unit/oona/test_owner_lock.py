"""One owner per journal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from esperd.oona.failures import JournalLocked
from esperd.oona.owner_lock import OwnerLock

HOLD = """
import sys, time
from pathlib import Path
from esperd.oona.owner_lock import OwnerLock
lock = OwnerLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_names_its_owner_and_dies_with_it(tmp_path: Path) -> None:
    """Another process's lock is refused with its pid, and is free the moment that process is killed."""
    path = tmp_path / "journal"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == "held\n"
            with pytest.raises(JournalLocked) as refusal:
                OwnerLock(path)
        finally:
            owner.send_signal(signal.SIGKILL)
    assert refusal.value.metadata == {"path": str(path), "pid": str(owner.pid)}
    lock = OwnerLock(path)
    assert path.with_name("journal.lock").read_text() == f"{os.getpid()}\n"
    lock.release()
