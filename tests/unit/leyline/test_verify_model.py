"""The verifier against a perfect memory: no envelope is accepted twice, and honest traffic is refused only when stated.

Random signing, sending, resending, forging, time, clock steps, restarts and exchanged key rings, beside an oracle that
forgets nothing and foretells every answer. That the model would notice a fault is shown by seeded mutants.
"""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from esperd.leyline.keyring import Key, KeyRing
from esperd.leyline.verify import RequestRefused
from esperd.leyline.vocabulary import Permission
from tests.unit.leyline.perfect_memory import PerfectMemory, Sent
from tests.unit.leyline.requests import RETIRING, REVOKED, Clocks, Desk, Envelope, Parts, make_key
from tests.unit.leyline.verify_mutants import MUTANTS, Mutant

KEYS = {name: make_key(name, bytes(range(place, place + 32))) for place, name in enumerate("abc", 1)}
UNPROVEN = {"SIGNATURE_INVALID", "SIGNATURE_MISSING", "ENVELOPE_MALFORMED", "ENVELOPE_TOO_LARGE"}
"""What a forged envelope may be told."""
STEP_THAT_CLOSES_S = 180.0
"""Retention less twice the window: only after the wall clock has been set back that far in one start of the daemon can
a fresh request be as old as one that is forgotten. The daemon then refuses until the clock has caught up."""

# Quarters of a second are exact in binary, so that the oracle's arithmetic is the verifier's; the edges are where
# freshness, retention and watermark turn.
EDGES = (0.0, 0.25, 59.75, 60.0, 60.25, 179.75, 180.0, 240.0, 299.75, 300.0, 300.25, 360.0)
passing_s = st.one_of(st.sampled_from(EDGES), st.integers(0, 1600).map(lambda quarters: quarters / 4))
step_s = st.one_of(
    st.sampled_from(EDGES).flatmap(lambda edge: st.sampled_from((edge, -edge))),
    st.integers(-16_000, 16_000).map(lambda quarters: quarters / 4),
)
skew_s = st.one_of(st.sampled_from((0.0, 60.0, -60.0, 60.25, -60.25)), st.integers(-280, 280).map(lambda q: q / 4))
honest_skew_s = st.integers(-240, 240).map(lambda quarters: quarters / 4)
key_ids = st.sampled_from(sorted(KEYS))
permissions = st.sampled_from((Permission.COMMAND, Permission.OBSERVE, Permission.ADMIN))


class Verification(RuleBasedStateMachine):
    """One daemon across its starts, its clients, and an attacker who has seen every byte."""

    parts = Parts()

    def __init__(self) -> None:
        super().__init__()
        self.clocks = Clocks()
        self.numbers = itertools.count(1)
        self.signed: list[Sent] = []
        self.accepted: list[Sent] = []
        self.accepted_bytes: set[tuple[bytes, bytes]] = set()
        self.ring: dict[str, Key] = dict(KEYS)

    @initialize(per_key=st.integers(1, 4), total=st.integers(2, 8))
    def begin(self, per_key: int, total: int) -> None:
        """A small store, so that it fills."""
        self.per_key, self.total = per_key, total
        self.restart()

    # The daemon and its clocks

    @rule()
    def restart(self) -> None:
        """A new start: an empty store and a new epoch; the monotonic clock begins anew."""
        self.clocks.monotonic_s = 50.0
        # Epochs of two starts may begin alike.
        epoch = bytes(8) + next(self.numbers).to_bytes(8, "big")
        self.desk = Desk(
            list(self.ring.values()),
            epoch=epoch,
            clocks=self.clocks,
            per_key=self.per_key,
            total=self.total,
            parts=self.parts,
        )
        self.memory = PerfectMemory(self.clocks, epoch, self.per_key, self.total)
        self.offsets = [self.clocks.wall_s - self.clocks.monotonic_s]

    @rule(seconds=passing_s)
    def time_passes(self, seconds: float) -> None:
        """Both clocks go on."""
        self.clocks.pass_time(seconds)

    @rule(seconds=step_s)
    def wall_clock_is_stepped(self, seconds: float) -> None:
        """Somebody sets the clock."""
        self.clocks.wall_s += seconds
        self.offsets.append(self.clocks.wall_s - self.clocks.monotonic_s)

    @rule(key_id=key_ids, change=st.sampled_from(("active", "revoked", "retiring", "gone", "prepared", "expiring")))
    def ring_is_exchanged(self, key_id: str, change: str) -> None:
        """A reload changes one key; what was remembered stays remembered."""
        now_s = self.clocks.wall_s
        changed: dict[str, Key | None] = {
            "active": KEYS[key_id],
            "revoked": replace(KEYS[key_id], declared=REVOKED),
            "retiring": replace(KEYS[key_id], declared=RETIRING),
            "gone": None,
            "prepared": replace(KEYS[key_id], not_before_unix_s=now_s + 60),
            "expiring": replace(KEYS[key_id], not_after_unix_s=now_s + 60),
        }
        key = changed[change]
        self.ring = {name: old for name, old in self.ring.items() if name != key_id}
        if key is not None:
            self.ring[key_id] = key
        self.desk.verifier.replace_keyring(KeyRing(self.ring.values()))

    # Its clients

    @rule(key_id=key_ids, skew=skew_s, permission=permissions)
    def sign_and_send(self, key_id: str, skew: float, permission: Permission) -> None:
        """A client with a clock of its own signs one request and sends it."""
        self.send(self.sign(key_id, skew), permission)

    @rule(key_id=key_ids, skew=skew_s, data=st.data())
    def nonce_is_used_again(self, key_id: str, skew: float, data: st.DataObject) -> None:
        """A client with bad randomness signs another request with a nonce that was used, by itself or by another."""
        if self.signed:
            self.send(self.sign(key_id, skew, data.draw(st.sampled_from(self.signed)).nonce))

    @rule(key_id=key_ids, skew=skew_s)
    def sign_for_later(self, key_id: str, skew: float) -> None:
        """A request is signed and kept up on its way."""
        self.sign(key_id, skew)

    @rule(key_id=key_ids, skew=honest_skew_s)
    def honest_request(self, key_id: str, skew: float) -> None:
        """Fresh, unused, permitted, by a key that is open: it passes if there is room and no clock was set back."""
        if key_id not in self.ring or self.ring[key_id].state(self.clocks.wall_s) not in ("active", "retiring"):
            return
        room_in_s = self.memory.room_in_s(key_id)
        reason = self.send(self.sign(key_id, skew))
        set_back_s = max(self.offsets) - (self.clocks.wall_s - self.clocks.monotonic_s)
        if reason == "TIMESTAMP_OUT_OF_WINDOW":
            assert set_back_s >= STEP_THAT_CLOSES_S, "refused though no clock was set back"
        elif reason:
            assert (reason, room_in_s > 0) == ("NONCE_CAPACITY", True), "refused though there was room"

    @rule(key_id=key_ids)
    def wait_as_told(self, key_id: str) -> None:
        """A client that meets a full store waits exactly as long as it is told, and then there is room."""
        if key_id not in self.ring or self.send(self.sign(key_id, 0.0)) != "NONCE_CAPACITY":
            return
        self.clocks.pass_time(self.retry_after_s)
        assert self.send(self.sign(key_id, 0.0)) != "NONCE_CAPACITY"

    # An attacker

    @rule(data=st.data(), permission=permissions)
    def replay(self, data: st.DataObject, permission: Permission) -> None:
        """Any envelope that was ever signed, once more or for the first time, late."""
        if self.signed:
            self.send(data.draw(st.sampled_from(self.signed)), permission)

    @rule(data=st.data(), forgotten=st.booleans())
    def wall_clock_is_turned_back_for_a_replay(self, data: st.DataObject, forgotten: bool) -> None:
        """The clock is turned to an accepted envelope's own time, perhaps after its nonce was forgotten."""
        if self.accepted:
            if forgotten:
                self.clocks.pass_time(300.0)
            sent = data.draw(st.sampled_from(self.accepted))
            self.wall_clock_is_stepped(sent.issue_unix_s - self.clocks.wall_s)
            self.send(sent)

    @rule(data=st.data(), name=st.sampled_from(("split", "join", "append", "double", "flip", "cut", "payload", "grow")))
    def forge(self, data: st.DataObject, name: str) -> None:
        """The bytes of a genuine envelope framed anew, or changed: whatever they are, they are not what was signed."""
        if self.signed:
            genuine = data.draw(st.sampled_from(self.signed)).envelope
            forged = _forgeries(genuine)[name]
            if forged != genuine:
                reason, _ = self.judge(forged, peer=f"ipv4:192.0.2.{next(self.numbers)}:1")
                assert reason in UNPROVEN, f"forged by {name}: {reason or 'accepted'}"

    @rule(key_id=key_ids, other=key_ids)
    def insider_signs_for_another(self, key_id: str, other: str) -> None:
        """Who has one key cannot sign for another, nor for one that does not exist."""
        name = "nobody" if key_id == other else other
        impostor = make_key(name, KEYS[key_id].secret.reveal())
        envelope = self.desk.sign(key=impostor, nonce=self.nonce())
        assert self.judge(envelope, peer=f"ipv4:192.0.2.{next(self.numbers)}:1")[0] == "SIGNATURE_INVALID"

    @rule(place=st.sampled_from(("ipv4:198.51.100.{}:1", "unix:")), key_id=key_ids)
    def flood(self, place: str, key_id: str) -> None:
        """Who keeps failing is slowed, and nobody else: on a Unix socket not even the holder of the key it names."""
        peer = place.format(next(self.numbers))
        forged = self.desk.sign(key=make_key(key_id), nonce=self.nonce())
        reasons = [self.judge(forged, peer=peer)[0] for _ in range(21)]
        assert set(reasons) <= {"SIGNATURE_INVALID", "AUTH_THROTTLED"}
        assert reasons[-1] == "AUTH_THROTTLED"

    # What must hold

    @invariant()
    def bounded(self) -> None:
        """The store never holds more than it may."""
        if hasattr(self, "desk"):
            assert len(self.desk.nonces) <= self.total

    def send(self, sent: Sent, permission: Permission = Permission.COMMAND) -> str:
        """Send a genuine envelope: the answer is the foretold one, and nothing that was accepted passes again."""
        room_in_s = self.memory.room_in_s(sent.key_id)
        foretold = self.memory.answer(sent, self.ring, permission)
        reason, retry_after_s = self.judge(sent.envelope, permission=permission, peer=self.peer(sent))
        bytes_sent = (sent.envelope.header, sent.envelope.payload)
        assert reason or bytes_sent not in self.accepted_bytes, "accepted twice"
        assert reason == foretold
        if reason == "NONCE_CAPACITY":
            assert retry_after_s == room_in_s
            self.retry_after_s = retry_after_s
        if not reason:
            self.accepted_bytes.add(bytes_sent)
            self.accepted.append(sent)
        return reason

    def judge(self, envelope: Envelope, **call: Any) -> tuple[str, float]:
        """Why the verifier refuses an envelope, empty when it passes; and after how long it may be tried again."""
        try:
            self.desk.verify(envelope, **call)
        except RequestRefused as refused:
            return refused.reason, float(refused.metadata.get("retry_after_s", 0.0))
        return "", 0.0

    def sign(self, key_id: str, skew: float, nonce: bytes = b"") -> Sent:
        """A genuine envelope."""
        nonce = nonce or self.nonce()
        issue_s = self.clocks.wall_s + skew
        payload = b"\x7a\x04" + next(self.numbers).to_bytes(4, "big")  # would do as the end of a header too
        envelope = self.desk.sign(payload, KEYS[key_id], issue_unix_s=issue_s, nonce=nonce)
        sent = Sent(envelope, key_id, nonce, issue_s, self.desk.epoch)
        self.signed.append(sent)
        return sent

    def peer(self, sent: Sent) -> str:
        """Every third sender is on the Unix socket; a key that is gone fails there, so it comes over TCP."""
        number = next(self.numbers)
        return "unix:" if number % 3 == 0 and sent.key_id in self.ring else f"ipv4:203.0.113.{number}:1"

    def nonce(self) -> bytes:
        """A nonce that nobody has used; it begins like others."""
        return bytes(8) + next(self.numbers).to_bytes(8, "big")


def _forgeries(genuine: Envelope) -> dict[str, Envelope]:
    header, payload, signature = genuine.header, genuine.payload, genuine.signature
    return {
        "split": Envelope(header[:-1], header[-1:] + payload, signature),
        "join": Envelope(header + payload, b"", signature),
        "append": Envelope(header + b"\x7a\x01x", payload, signature),  # a field that no version of ours has
        "double": Envelope(header + header, payload, signature),  # parses to the very same header
        "flip": Envelope(header, payload, bytes([signature[0] ^ 1]) + signature[1:]),
        "cut": Envelope(header, payload, signature[:16]),
        "payload": Envelope(header, payload + b"\x00", signature),
        "grow": Envelope(header, payload, signature + b"\x00"),
    }


QUIET: Any = {
    "stateful_step_count": 50,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}

TestVerification = Verification.TestCase
TestVerification.settings = settings(max_examples=500, **QUIET)
SEARCH: Any = settings(
    max_examples=400,
    derandomize=True,
    phases=[Phase.generate],
    database=None,
    report_multiple_bugs=False,
    **QUIET,
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_the_model_notices(mutant: Mutant) -> None:
    """Each seeded fault of the verifier contradicts the perfect memory; the same search always finds it."""

    class Faulty(Verification):
        parts = mutant.parts()

    with pytest.raises((AssertionError, IndexError, KeyError)):
        run_state_machine_as_test(Faulty, settings=SEARCH)
