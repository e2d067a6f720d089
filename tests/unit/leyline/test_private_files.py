"""Files that hold secrets: who else may read one, and when it is refused."""

import errno
import os
import struct
from pathlib import Path

import pytest

from esperd.leyline.private_files import PrivateFileRefused, read_private_text, write_private_text

OWNER, USER, GROUP_OWNER, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NOBODY = 0xFFFFFFFF
READ = 4


def with_access_list(path: Path, *entries: tuple[int, int, int]) -> Path:
    """A file that these may read: (tag, permissions, id) beside its owner and the mask."""
    path.write_text("text")
    path.chmod(0o600)
    every = sorted([(OWNER, READ, NOBODY), (MASK, READ, NOBODY), *entries])
    try:
        os.setxattr(
            path, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in every)
        )
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip("this file system has no access lists")
        raise
    return path


def test_a_systemd_credential_is_private(tmp_path: Path) -> None:
    """Mode 0440, whose group bits are the mask of an access list with this user alone in it."""
    path = with_access_list(tmp_path / "keys", (USER, READ, os.geteuid()), (GROUP_OWNER, 0, NOBODY), (OTHER, 0, NOBODY))
    assert path.stat().st_mode & 0o777 == 0o440
    assert read_private_text(path) == "text"


@pytest.mark.parametrize(
    "entry", [(USER, READ, os.geteuid() + 1), (GROUP, READ, 4711), (GROUP_OWNER, READ, NOBODY)], ids=str
)
def test_an_access_list_with_others_is_refused(tmp_path: Path, entry: tuple[int, int, int]) -> None:
    """Another user, a named group or the owning group: somebody else could read it."""
    entries = {(GROUP_OWNER, 0, NOBODY), (OTHER, 0, NOBODY), (USER, READ, os.geteuid())}
    entries = {kept for kept in entries if kept[0] != entry[0] or entry[0] == USER} | {entry}
    path = with_access_list(tmp_path / "keys", *entries)
    assert path.stat().st_mode & 0o777 == 0o440
    with pytest.raises(PrivateFileRefused, match="0440"):
        read_private_text(path)


@pytest.mark.parametrize("mode", [0o440, 0o604, 0o620, 0o610, 0o601, 0o666])
def test_without_an_access_list_the_mode_decides(tmp_path: Path, mode: int) -> None:
    """Any bit for the group or for others is one too many."""
    path = tmp_path / "keys"
    path.write_text("text")
    path.chmod(mode)
    with pytest.raises(PrivateFileRefused, match=f"{mode:04o}"):
        read_private_text(path)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_what_only_the_owner_may_read_is_read(tmp_path: Path, mode: int) -> None:
    """Writable or not."""
    path = tmp_path / "keys"
    path.write_text("text")
    path.chmod(mode)
    assert read_private_text(path) == "text"


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    """In a container every start has the same process number, so its unfinished file may have our name."""
    (tmp_path / f".keys.{os.getpid()}.new").write_text("half")
    write_private_text(tmp_path / "keys", "whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("keys", "whole")]
