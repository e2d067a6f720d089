"""What keys do by time alone: they expire, and those who keep them are warned."""

import structlog
from structlog.testing import capture_logs

from esperd.control.connections import Connections
from esperd.control.key_port import KeyRevoked, KeysReloaded
from esperd.control.key_service import LOOK_S, WARN_AGAIN_S, KeyService
from esperd.leyline.keyring import Key, KeyState
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import Permission

START = 1.8e9
DAY_S = 86400.0


class Keys:
    """Keys that somebody else keeps."""

    def __init__(self, *keys: Key) -> None:
        self._keys = {key.key_id: key for key in keys}

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(self._keys.values())

    def find(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def reload(self) -> KeysReloaded:
        raise AssertionError("nobody asked")

    async def revoke(self, key_id: str, reason: str) -> KeyRevoked:
        raise AssertionError("nobody asked")


class Watch:
    """A service over these keys, and its clock."""

    def __init__(self, *keys: Key) -> None:
        self.now = START
        self.connections = Connections(lambda: self.now, 8)
        self.service = KeyService(
            keys=Keys(*keys), connections=self.connections, clock=lambda: self.now, log=structlog.get_logger()
        )

    def warnings_after(self, passed_s: float) -> list[tuple[str, object]]:
        """What the log is warned of when so much time has passed: event and key id."""
        self.now += passed_s
        with capture_logs() as lines:
            self.service.tick()
        assert all(line["log_level"] == "warning" for line in lines)
        return [(line["event"].split(";")[0], line["key_id"]) for line in lines]


def key(key_id: str, *, ends_in_s: float | None = None, declared: KeyState = KeyState.ACTIVE) -> Key:
    end = None if ends_in_s is None else START + ends_in_s
    return Key(key_id, "p", frozenset({Permission.COMMAND}), Secret(bytes(range(32))), None, end, declared)


def test_the_use_of_a_retiring_key_is_told() -> None:
    """Once it is used, and again only after an hour in which it was used; never while nobody uses it."""
    watch = Watch(key("old", ends_in_s=DAY_S, declared=KeyState.RETIRING), key("new"))
    told = [("a retiring key is still used", "old")]
    assert watch.warnings_after(LOOK_S) == []
    watch.connections.note_signer("old", "p", None)
    watch.connections.note_signer("new", "p", None)
    assert watch.warnings_after(LOOK_S) == told
    watch.connections.note_signer("old", "p", None)
    assert watch.warnings_after(LOOK_S) == []
    watch.connections.note_signer("old", "p", None)
    assert watch.warnings_after(WARN_AGAIN_S) == told
    assert watch.warnings_after(WARN_AGAIN_S) == []


def test_a_key_that_expires_soon_is_told() -> None:
    """From seven days before its end, every hour, until it has a successor and retires."""
    watch = Watch(key("a", ends_in_s=8 * DAY_S), key("b"), key("c", ends_in_s=DAY_S, declared=KeyState.REVOKED))
    told = [("a key expires soon", "a")]
    assert watch.warnings_after(0) == []
    assert watch.warnings_after(DAY_S + 1) == told
    assert watch.warnings_after(LOOK_S) == []
    assert watch.warnings_after(WARN_AGAIN_S) == told
    assert watch.warnings_after(7 * DAY_S) == []


def test_whether_any_key_is_accepted() -> None:
    """No key, or none in its window: nothing signed can be accepted, which the condition `keys` tells."""
    assert not Watch().service.is_any_accepted
    watch = Watch(key("a", ends_in_s=60), key("b", declared=KeyState.REVOKED))
    assert watch.service.is_any_accepted
    watch.now += 60
    assert not watch.service.is_any_accepted
