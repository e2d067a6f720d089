"""The daemon's own command line, with a thread that says how many bytes its memory holds in use.

`python -m tests.robustness.measured_daemon SOCKET serve FILE ...`; whoever connects to the Unix socket is told the
number and let go. Resident memory would not do: an allocator takes it in steps larger than what is looked for. To
be started with `PYTHONMALLOC=malloc`, so that one allocator has everything.
"""

import ctypes
import gc
import socket
import sys
import threading
from collections.abc import Sequence

_ANSWER_BYTES = 64


class _Usage(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "x")
    )


def main(arguments: Sequence[str]) -> int:
    """Measure, and be `esperd`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(arguments[0])
    listener.listen()
    threading.Thread(target=_answer, args=(listener,), name="measure", daemon=True).start()
    from esperd.cli.main import run

    return run(arguments[1:])


def bytes_in_use(path: str) -> int:
    """Ask the daemon at this socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        return int(asking.recv(_ANSWER_BYTES))


def _answer(listener: socket.socket) -> None:
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Usage
    while True:
        caller, _ = listener.accept()
        with caller:
            gc.collect()
            usage = mallinfo2()
            caller.sendall(str(usage.uordblks + usage.hblkhd).encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
