"""The keeper of the keys: a new ring whole or not at all, and revoked for good."""

import asyncio
from pathlib import Path

import pytest
import structlog

from esperd.control.key_port import KeysReloaded
from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import Key, KeyState
from esperd.leyline.keyring_edit import append_key, new_key
from esperd.leyline.revocations import read_revocations
from esperd.leyline.verify import Verifier
from esperd.leyline.vocabulary import Permission
from esperd.weatherlight.key_keeper import KeyKeeper

NOW = 1.8e9


class Keeping:
    """A keeper over files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.ring = folder / "keys.toml"
        self.revocations = folder / "revoked-keys.toml"
        self.num_ends = 0
        self.verifier = Verifier(
            keyring=None, audience="d", epoch=bytes(16), wall_clock=lambda: NOW, monotonic=lambda: 0.0
        )
        self.revoked: set[str] = set()
        self.keeper = self.make_keeper()

    def make_keeper(self) -> KeyKeeper:
        """The keeper of one run of the process."""
        return KeyKeeper(
            find_ring=lambda: self.ring if self.ring.exists() else None,
            revocations=self.revocations,
            verifier=self.verifier,
            end_streams=self._end_streams,
            clock=lambda: NOW,
            log=structlog.get_logger(),
            revoked=self.revoked,
        )

    def _end_streams(self) -> int:
        self.num_ends += 1
        return 7

    def add(self, principal: str) -> Key:
        key = new_key(principal, [Permission.COMMAND], NOW - 1)
        append_key(self.ring, key)
        return key

    def state(self, key: Key) -> KeyState | None:
        found = self.keeper.find(key.key_id)
        return None if found is None else found.state(NOW)


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    """Nothing there yet."""
    return Keeping(tmp_path)


def test_no_ring_is_no_failure_and_one_may_come(keeping: Keeping) -> None:
    """Without a ring nothing is accepted; a reload finds the one that has been made since."""
    keeping.keeper.open()
    assert keeping.verifier.keyring is None
    assert keeping.keeper.keys == ()
    assert keeping.keeper.reload() == KeysReloaded((), (), (), 7)
    key = keeping.add("a")
    assert keeping.keeper.reload() == KeysReloaded((key.key_id,), (), (), 7)
    assert keeping.keeper.keys == (key,)


def test_preparing_changes_nothing(keeping: Keeping) -> None:
    """What is prepared is in force only once it is swapped in, and the answer says what has changed."""
    first = keeping.add("a")
    keeping.keeper.open()
    second = keeping.add("b")
    keeping.ring.write_text(keeping.ring.read_text().replace('"command"', '"operate"', 1))
    prepared = keeping.keeper.prepare()
    assert keeping.keeper.keys == (first,)
    assert keeping.num_ends == 0
    done = keeping.keeper.swap(prepared)
    assert (done.added, done.removed, done.changed) == ((second.key_id,), (), (first.key_id,))
    assert keeping.num_ends == 1


@pytest.mark.parametrize("spoil", ["nonsense", "mode", "gone"])
def test_a_bad_ring_leaves_the_good_one(keeping: Keeping, spoil: str) -> None:
    """KEYRING_INVALID, and the keys in force stay in force: also when the file has gone."""
    key = keeping.add("a")
    keeping.keeper.open()
    if spoil == "nonsense":
        keeping.ring.write_text("[[keys]]\nid = 'x'\n")
    elif spoil == "mode":
        keeping.ring.chmod(0o644)
    else:
        keeping.ring.unlink()
    with pytest.raises(EsperdError) as caught:
        keeping.keeper.reload()
    assert caught.value.reason == "KEYRING_INVALID"
    assert keeping.keeper.keys == (key,)
    assert keeping.num_ends == 0


async def test_a_revoked_key_stays_revoked(keeping: Keeping) -> None:
    """Refused at once, its streams ended; neither a reload nor a new start of the daemon brings it back."""
    key, other = keeping.add("a"), keeping.add("b")
    keeping.keeper.open()
    done = await keeping.keeper.revoke(key.key_id, "lost")
    assert done.key.declared is KeyState.REVOKED
    assert (done.num_streams_ended, keeping.num_ends) == (7, 1)
    assert keeping.keeper.reload().changed == ()
    restarted = Keeping(keeping.ring.parent)
    restarted.keeper.open()
    for kept in (keeping, restarted):
        assert (kept.state(key), kept.state(other)) == (KeyState.REVOKED, KeyState.ACTIVE)
    row = read_revocations(keeping.revocations)[0]
    assert (row.key_id, row.principal, row.reason, row.unix_s) == (key.key_id, "a", "lost", NOW)


async def test_a_ring_that_cannot_be_written_is_revocable(keeping: Keeping) -> None:
    """A systemd credential is read-only: the ring's file is never touched by a revocation."""
    key = keeping.add("a")
    keeping.ring.chmod(0o400)
    before = keeping.ring.read_bytes(), keeping.ring.stat().st_mtime_ns
    keeping.keeper.open()
    await keeping.keeper.revoke(key.key_id, "")
    assert (keeping.ring.read_bytes(), keeping.ring.stat().st_mtime_ns) == before
    assert keeping.state(key) is KeyState.REVOKED


async def test_revoking_while_a_ring_is_prepared(keeping: Keeping) -> None:
    """What was prepared before the revocation does not bring the key back."""
    key = keeping.add("a")
    keeping.keeper.open()
    prepared = keeping.keeper.prepare()
    await keeping.keeper.revoke(key.key_id, "")
    keeping.keeper.swap(prepared)
    assert keeping.state(key) is KeyState.REVOKED


async def test_what_cannot_be_kept_is_in_force_and_told(keeping: Keeping) -> None:
    """REVOCATION_NOT_KEPT: the key is refused now, and a second try makes it last once the fault is mended."""
    key = keeping.add("a")
    keeping.keeper.open()
    keeping.revocations.mkdir()
    with pytest.raises(EsperdError) as caught:
        await keeping.keeper.revoke(key.key_id, "")
    assert caught.value.reason == "REVOCATION_NOT_KEPT"
    assert keeping.state(key) is KeyState.REVOKED
    keeping.revocations.rmdir()
    assert keeping.keeper.reload().changed == ()
    assert keeping.state(key) is KeyState.REVOKED
    await keeping.keeper.revoke(key.key_id, "")
    assert [row.key_id for row in read_revocations(keeping.revocations)] == [key.key_id]


async def test_the_next_run_of_the_process_knows_what_could_not_be_kept(keeping: Keeping) -> None:
    """StartRun makes another keeper; the key stays refused while the process lives."""
    key = keeping.add("a")
    keeping.keeper.open()
    keeping.revocations.mkdir()
    with pytest.raises(EsperdError):
        await keeping.keeper.revoke(key.key_id, "")
    keeping.revocations.rmdir()
    keeping.keeper = keeping.make_keeper()
    keeping.keeper.open()
    assert keeping.state(key) is KeyState.REVOKED


async def test_only_keys_of_the_ring_can_be_revoked(keeping: Keeping) -> None:
    """KEY_UNKNOWN for any other id, also without a ring; nothing is written."""
    keeping.keeper.open()
    with pytest.raises(EsperdError, match="nobody-1"):
        await keeping.keeper.revoke("nobody-1", "")
    keeping.add("a")
    keeping.keeper.reload()
    with pytest.raises(EsperdError) as caught:
        await keeping.keeper.revoke("nobody-1", "")
    assert caught.value.reason == "KEY_UNKNOWN"
    assert not keeping.revocations.exists()


async def test_many_at_once(keeping: Keeping) -> None:
    """Revocations that come together are all kept."""
    keys = [keeping.add(f"p{number}") for number in range(8)]
    keeping.keeper.open()
    await asyncio.gather(*(keeping.keeper.revoke(key.key_id, "") for key in keys))
    assert {row.key_id for row in read_revocations(keeping.revocations)} == {key.key_id for key in keys}


def test_a_damaged_file_of_revocations_stops_the_start(keeping: Keeping) -> None:
    """Who cannot know whom to refuse lets nobody in."""
    keeping.add("a")
    keeping.revocations.write_text("nonsense")
    keeping.revocations.chmod(0o600)
    with pytest.raises(EsperdError) as caught:
        keeping.keeper.open()
    assert caught.value.reason == "KEYRING_INVALID"
    assert keeping.verifier.keyring is None
