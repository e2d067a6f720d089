"""What a compiling process does to itself first: low priority, a bound on its memory, and an end with its parent.

The compiler's child process, before anything large is imported. What it starts inherits all but the last.
"""

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1


def be_modest(memory_bytes: int, niceness: int) -> None:
    """Take a low priority, and bound this process's private memory; 0 sets no bound."""
    os.nice(niceness)
    if memory_bytes:
        # Not the address space: torch maps gigabytes that it never touches, CUDA terabytes.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_with_parent(parent_id: int) -> None:
    """Be killed when the parent ends, however that ends (Linux); at once when it has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:
        os.kill(os.getpid(), signal.SIGKILL)
