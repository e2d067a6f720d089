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

HOLD_WITH_CHILD = """
import os, sys, time
from pathlib import Path
from esperd.oona.owner_lock import OwnerLock
lock = OwnerLock(Path(sys.argv[1]))
child = os.fork()
if child:
    print(child, flush=True)
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


def test_a_forked_child_does_not_hold_the_lock_beyond_its_parents_death(tmp_path: Path) -> None:
    """A data worker notices only after seconds that its daemon was killed; the next daemon starts meanwhile."""
    path = tmp_path / "journal"
    command = [sys.executable, "-c", HOLD_WITH_CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        try:
            with pytest.raises(JournalLocked):
                OwnerLock(path)
            owner.kill()
            owner.wait()
            os.kill(child, 0)  # it lives
            OwnerLock(path).release()
        finally:
            owner.kill()
            os.kill(child, signal.SIGKILL)


def test_letting_go_twice_is_letting_go_once(tmp_path: Path) -> None:
    """The second release closes no descriptor that has become another's."""
    lock = OwnerLock(tmp_path / "journal")
    lock.release()
    with (tmp_path / "other").open("w") as other:
        lock.release()
        other.write("still open")
        other.flush()
