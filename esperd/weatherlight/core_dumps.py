"""Keeps the memory of the daemon, and the secrets in it, out of core files and away from debuggers of the same user.

Main thread, once, before any secret is read. What the daemon starts later inherits the limit, not the flag.
"""

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """No core file from now on, and no tracing by processes without privileges; /proc/PID is for root alone.

    The limit by itself would not do: a core that is piped to a program (systemd-coredump) knows no limit. Raises
    OSError when the system refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_DUMPABLE): {os.strerror(number)}")
