"""What the process denies itself before it opens a kernel: memory, time, files, other programs, the network.

The validator's own process, main thread, at its start. Limits hold from the beginning; system calls that no kernel
makes are taken away once torch is loaded (seccomp, all threads): whoever makes one is killed with SIGSYS, which the
report then says. It needs no privilege, and works inside a hardened service, where namespaces are refused.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
MAX_FILES = 256
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32_BIT = 0x40000000
CLONE_THREAD = 0x10000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_X86_64: Mapping[str, int] = {
    "seccomp": 317, "open": 2, "openat": 257, "openat2": 437, "clone": 56, "clone3": 435, "tgkill": 234,
    # the network
    "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50, "accept4": 288,
    "sendmmsg": 307,
    # other programs and processes
    "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "kill": 62, "tkill": 200, "ptrace": 101,
    "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438,
    "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "prlimit64": 302, "setpriority": 141, "process_madvise": 440,
    # files
    "creat": 85, "rename": 82, "renameat": 264, "renameat2": 316, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "link": 86,
    "linkat": 265, "unlink": 87, "unlinkat": 263, "symlink": 88, "symlinkat": 266, "mknod": 133, "mknodat": 259,
    "chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
    "fchmodat2": 452, "truncate": 76, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "setxattrat": 463,
    "open_by_handle_at": 304, "memfd_create": 319,
    # the system
    "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "chroot": 161, "pivot_root": 155, "bpf": 321,
    "perf_event_open": 298, "io_uring_setup": 425, "userfaultfd": 323, "keyctl": 250, "add_key": 248,
    "init_module": 175, "finit_module": 313, "kexec_load": 246, "reboot": 169, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "mount_setattr": 442,
}  # fmt: skip
_AARCH64: Mapping[str, int] = {
    "seccomp": 277, "openat": 56, "openat2": 437, "clone": 220, "clone3": 435, "tgkill": 131,
    "socket": 198, "connect": 203, "accept": 202, "sendto": 206, "sendmsg": 211, "bind": 200, "listen": 201,
    "accept4": 242, "sendmmsg": 269,
    "execve": 221, "execveat": 281, "kill": 129, "tkill": 130, "ptrace": 117, "process_vm_readv": 270,
    "process_vm_writev": 271, "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438,
    "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "prlimit64": 261, "setpriority": 140, "process_madvise": 440,
    "renameat": 38, "renameat2": 276, "mkdirat": 34, "linkat": 37, "unlinkat": 35, "symlinkat": 36, "mknodat": 33,
    "fchmod": 52, "fchmodat": 53, "fchown": 55, "fchownat": 54, "fchmodat2": 452, "truncate": 45, "setxattr": 5,
    "lsetxattr": 6, "fsetxattr": 7, "setxattrat": 463, "open_by_handle_at": 265, "memfd_create": 279,
    "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "chroot": 51, "pivot_root": 41, "bpf": 280,
    "perf_event_open": 241, "io_uring_setup": 425, "userfaultfd": 282, "keyctl": 219, "add_key": 217,
    "init_module": 105, "finit_module": 273, "kexec_load": 104, "reboot": 142, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "mount_setattr": 442,
}  # fmt: skip
_MACHINES: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "x86_64": (0xC000003E, _X86_64),
    "aarch64": (0xC00000B7, _AARCH64),
}
_WITH_RULES_OF_THEIR_OWN = ("seccomp", "open", "openat", "openat2", "clone", "clone3", "tgkill", "prlimit64")

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


def limit(memory_bytes: int, cpu_s: float, *, on_cuda: bool) -> None:
    """Limits of the process for good: no core dump, few files, memory, processor time; its parent's end is its own.

    Where memory runs out in spite of them, it goes before the daemon does.
    """
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):  # some containers hide the file: then whoever is largest goes
        Path("/proc/self/oom_score_adj").write_text("1000")
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_CPU, int(cpu_s) + 1),
    ):
        resource.setrlimit(kind, (value, value))
    if not on_cuda:  # the driver of a GPU reserves far more addresses than memory
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def confine(*, on_cuda: bool) -> str:
    """Give up the system calls that no kernel makes, in every thread, for good.

    Returns why they could not be given up, empty when they were.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    known = _MACHINES.get(platform.machine())
    if known is None:
        return f"no rules for system calls on {platform.machine()}"
    architecture, numbers = known
    program = _program(architecture, numbers, may_write=on_cuda)
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    libc = _libc()
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"no_new_privs: {os.strerror(ctypes.get_errno())}"
    status = libc.syscall(
        ctypes.c_long(numbers["seccomp"]),
        ctypes.c_ulong(SECCOMP_SET_MODE_FILTER),
        ctypes.c_ulong(SECCOMP_FILTER_FLAG_TSYNC),
        ctypes.c_char_p(header),
    )
    return "" if status == 0 else f"seccomp: {os.strerror(ctypes.get_errno())}"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _program(architecture: int, numbers: Mapping[str, int], *, may_write: bool) -> Sequence[Instruction]:
    """The filter, in the kernel's own little language: every block ends in a verdict or falls through."""
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
    ]
    # Without these the C library does with older calls, whose arguments can be looked at.
    for name in ("clone3", "openat2"):
        program += _when(numbers[name], [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)])
    program += _when(numbers["clone"], _kill_if((_ANY_BIT, CLONE_THREAD), argument=0, passed=False))
    program += _when(numbers["tgkill"], _kill_if((_EQUAL, os.getpid()), argument=0, passed=False))
    # Another's limits would be its end.
    program += _when(numbers["prlimit64"], _kill_if((_EQUAL, 0), argument=0, passed=False))
    if not may_write:
        for name, argument in (("open", 1), ("openat", 2)):
            if name in numbers:
                program += _when(numbers[name], _kill_if((_ANY_BIT, _WRITES), argument=argument, passed=True))
    for name, number in numbers.items():
        if name not in _WITH_RULES_OF_THEIR_OWN:
            program += _when(number, [(_RETURN, 0, 0, _KILL)])
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _when(number: int, body: Sequence[Instruction]) -> list[Instruction]:
    return [(_EQUAL, 0, len(body), number), *body]


def _kill_if(test: tuple[int, int], *, argument: int, passed: bool) -> list[Instruction]:
    """Kill where the low half of an argument passes the test, or where it does not; allow the others."""
    code, operand = test
    return [
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        (code, 0, 1, operand) if passed else (code, 1, 0, operand),
        (_RETURN, 0, 0, _KILL),
        (_RETURN, 0, 0, _ALLOW),
    ]
