"""Keeps the keys in force: the ring of its file, less those that were revoked; reads it again, and revokes.

Event loop only; a file is a few kilobytes, and what has to be durable is written in a thread. A new ring is in force
whole or not at all. Design 01, Signed requests.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from structlog.stdlib import BoundLogger

from esperd.control.key_port import KeyRevoked, KeysReloaded
from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import Key, KeyRing
from esperd.leyline.private_files import PrivateFileRefused
from esperd.leyline.revocations import Revocation, add_revocation, read_revocations
from esperd.leyline.verify import Verifier


class KeyKeeper:
    """The keys of one start of the daemon."""

    def __init__(
        self,
        *,
        find_ring: Callable[[], Path | None],
        revocations: Path,
        verifier: Verifier,
        end_streams: Callable[[], int],
        clock: Callable[[], float],
        log: BoundLogger,
        revoked: set[str] | None = None,
    ) -> None:
        """`find_ring` says where the ring is, None while there is none; `revocations` is the file of the revoked.
        `revoked` are those of earlier runs of the same process; they are added to here.

        `end_streams` ends the open streams whose key is no longer accepted and says how many; `clock` gives Unix
        seconds. Nothing is read before `open`.
        """
        self._find_ring = find_ring
        self._revocations = revocations
        self._verifier = verifier
        self._end_streams = end_streams
        self._clock = clock
        self._log = log
        self._revoked: set[str] = set() if revoked is None else revoked
        """Revoked in this process: in force also where the file of revocations could not be written."""

    def open(self) -> None:
        """Use the ring that is there. Raises EsperdError KEYRING_INVALID."""
        ring = self.prepare()
        if ring is None:
            self._log.warning("no key ring: every signed request is refused", make_one="esperctl keys new")
        self._verifier.replace_keyring(ring)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key in force, in the order of the ring; none without a ring."""
        ring = self._verifier.keyring
        return () if ring is None else ring.keys

    def find(self, key_id: str) -> Key | None:
        """The key in force of this id, whatever its state."""
        ring = self._verifier.keyring
        return None if ring is None else ring.find(key_id)

    def prepare(self) -> KeyRing | None:
        """Read the ring without using it; None while there has never been one.

        Raises EsperdError KEYRING_INVALID, also when the ring in force has no file any more.
        """
        path = self._find_ring()
        if path is None:
            if self._verifier.keyring is not None:
                raise EsperdError("KEYRING_INVALID", path="in the run directory", detail="it is gone")
            return None
        revoked = {row.key_id for row in read_revocations(self._revocations)}
        return KeyRing.load(path).with_revoked(revoked | self._revoked)

    def swap(self, ring: KeyRing | None) -> KeysReloaded:
        """Use a prepared ring from the next request on, and end the streams of keys that it does not accept."""
        before = {key.key_id: key for key in self.keys}
        self._verifier.replace_keyring(None if ring is None else ring.with_revoked(self._revoked))
        now = {key.key_id: key for key in self.keys}
        done = KeysReloaded(
            added=tuple(key_id for key_id in now if key_id not in before),
            removed=tuple(key_id for key_id in before if key_id not in now),
            changed=tuple(key_id for key_id in now if key_id in before and now[key_id] != before[key_id]),
            num_streams_ended=self._end_streams(),
        )
        self._log.info(
            "key ring read again",
            added=done.added,
            removed=done.removed,
            changed=done.changed,
            num_streams_ended=done.num_streams_ended,
        )
        return done

    def reload(self) -> KeysReloaded:
        """Read the ring again: the whole new ring, or EsperdError KEYRING_INVALID and the old one stays."""
        return self.swap(self.prepare())

    async def revoke(self, key_id: str, reason: str) -> KeyRevoked:
        """Refuse a key from now on, also after restarts and reloads; its streams end at once.

        Raises EsperdError KEY_UNKNOWN; REVOCATION_NOT_KEPT when it is in force but would not outlive this start.
        """
        ring = self._verifier.keyring
        if ring is None or ring.find(key_id) is None:
            raise EsperdError("KEY_UNKNOWN", key_id=key_id)
        self._revoked.add(key_id)
        ring = ring.with_revoked({key_id})
        self._verifier.replace_keyring(ring)
        num_streams_ended = self._end_streams()
        key = ring.find(key_id)
        assert key is not None  # it was there, and revoking removes none
        self._log.warning(
            "key revoked", key_id=key_id, principal=key.principal, reason=reason, num_streams_ended=num_streams_ended
        )
        await self._write(Revocation(key_id, key.principal, reason, self._clock()))
        return KeyRevoked(key, num_streams_ended)

    async def _write(self, revocation: Revocation) -> None:
        """In force it is already; the answer waits until it is durable too."""
        try:
            await asyncio.to_thread(add_revocation, self._revocations, revocation)
        except (PrivateFileRefused, EsperdError) as error:
            self._log.error("a revocation will not outlive the daemon", key_id=revocation.key_id, detail=str(error))
            raise EsperdError(
                "REVOCATION_NOT_KEPT", key_id=revocation.key_id, path=self._revocations, detail=error
            ) from error
