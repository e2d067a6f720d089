"""Reads and writes files that hold secrets: only their owner may read them, and a write is all or nothing.

Any thread; blocking file work, so the event loop calls it at start-up and on a reload only. Raises `PrivateFileRefused`
in plain words; the callers turn it into the catalogue's error for their kind of file.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAX_BYTES = 1 << 20
"""No key file is larger; a wrong path to a large file is refused instead of read."""

# A POSIX access list as the kernel gives it (linux/posix_acl_xattr.h): a version, then entries of tag, permissions, id.
_ACL_HEADER = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_VERSION = 2
_ACL_OWNER, _ACL_USER, _ACL_MASK = 0x01, 0x02, 0x10


class PrivateFileRefused(Exception):
    """The file cannot be read or trusted; the text says why."""


def read_private_text(path: Path, *, any_owner: bool = False) -> str:
    """Return the file's text. `any_owner` is for those who only change a file that others are to trust.

    Raises PrivateFileRefused when it is missing, unreadable, not a regular file, readable for others, owned by
    somebody else, too large, or not UTF-8.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise PrivateFileRefused(error.strerror or str(error)) from error
    try:
        # The opened file is judged, not the path, which could be swapped between a look and a read.
        _judge(descriptor, any_owner)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise PrivateFileRefused(error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise PrivateFileRefused(f"it has more than {_MAX_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise PrivateFileRefused("it is not UTF-8 text") from error


def write_private_text(path: Path, text: str, *, owner: os.stat_result | None = None) -> None:
    """Replace the file by `text` with mode 0600: durable, and either the old or the new content is ever seen.

    Root may give it to an `owner`; everybody else owns what they write. Raises PrivateFileRefused when the directory
    cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fresh.unlink(missing_ok=True)  # left by a process of this number that was killed: in a container all have one
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                if owner is not None and os.geteuid() == 0:
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise PrivateFileRefused(f"cannot be written: {error.strerror or error}") from error


@contextmanager
def one_writer(directory: Path) -> Iterator[None]:
    """Let one process at a time read, change and replace files of this directory."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PrivateFileRefused(f"its directory cannot be opened: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory as durable as the files. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _judge(descriptor: int, any_owner: bool) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise PrivateFileRefused("it is not a regular file")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 and not (mode & 0o077 == 0o040 and _lets_in_this_user_alone(descriptor)):
        raise PrivateFileRefused(f"its mode is {mode:04o}, it must be 0600")
    if status.st_uid not in (os.geteuid(), 0) and not any_owner:
        raise PrivateFileRefused(f"it belongs to uid {status.st_uid}")


def _lets_in_this_user_alone(descriptor: int) -> bool:
    """Whether the group bits are but the mask of an access list that names this process's user, and nobody else.

    That is how systemd hands over a credential: a file of root, mode 0440, with an entry for the service's user.
    """
    try:
        packed = os.getxattr(descriptor, "system.posix_acl_access")
    except OSError:
        return False
    if len(packed) % _ACL_ENTRY.size != _ACL_HEADER.size or _ACL_HEADER.unpack_from(packed) != (_ACL_VERSION,):
        return False
    for tag, permissions, number in _ACL_ENTRY.iter_unpack(packed[_ACL_HEADER.size :]):
        is_owner_or_mask = tag in (_ACL_OWNER, _ACL_MASK)
        is_this_user = tag == _ACL_USER and number == os.geteuid()
        if permissions and not (is_owner_or_mask or is_this_user):
            return False
    return True
