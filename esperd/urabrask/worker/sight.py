"""What files the process can still reach once it opens a kernel: its own, and those of the programs it consists of.

The validator's own process, main thread, before the first kernel is opened. The daemon's keys lie in files of the same
user, and its memory is a file as well (`/proc/PID/mem`): Landlock takes both away, for this thread and all that it
starts from then on, without any privilege. Systems without it (Linux before 5.13) hide nothing; the other limits
(`confinement.py`) hold all the same.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from esperd.urabrask.worker.confinement import PR_SET_NO_NEW_PRIVS

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls, the same on every machine."""
PATH_BENEATH = 1
WRITE_FILE, READ_FILE, READ_DIRECTORY = 1 << 1, 1 << 2, 1 << 3
_DEVICES = ("/proc", "/dev")
"""The driver of a GPU writes there too; on a CPU nobody writes at all."""
_SYSTEM = ("/usr", "/lib", "/lib64", "/sys", "/etc/ld.so.cache", "/etc/localtime")


def hide_files(own: Path) -> bool:
    """Reach nothing from here on but `own`, Python's and the libraries' directories, and devices.

    Returns whether that is so.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handled = struct.pack("Q", WRITE_FILE | READ_FILE | READ_DIRECTORY)
    rules = _call(libc, CREATE_RULESET, ctypes.c_char_p(handled), len(handled), 0)
    if rules < 0:
        return False
    try:
        for path in sorted({*_SYSTEM, *_of_python(), *_of_libraries()}):
            _allow(libc, rules, path, READ_FILE | READ_DIRECTORY)
        for path in (str(own), *_DEVICES):
            _allow(libc, rules, path, WRITE_FILE | READ_FILE | READ_DIRECTORY)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return False
        return _call(libc, RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)


def _of_python() -> Iterator[str]:
    yield from (path for path in sys.path if path)
    yield from (sys.prefix, sys.base_prefix, sys.exec_prefix)


def _of_libraries() -> Iterator[str]:
    """Directories of all that is mapped: what a library there brings in later lies beside it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if ".so" in path:
            yield str(Path("/" + path).parent)


def _allow(libc: ctypes.CDLL, rules: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it is not there
    try:
        access &= ~0 if Path(path).is_dir() else ~READ_DIRECTORY
        _call(libc, ADD_RULE, rules, PATH_BENEATH, ctypes.c_char_p(struct.pack("=Qi", access, descriptor)), 0)
    finally:
        os.close(descriptor)


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    plain = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(libc.syscall(ctypes.c_long(number), *plain))
