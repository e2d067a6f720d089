"""The ten checks of a signed request: each reason, their order, and what a caller may learn."""

import hashlib
from typing import Any

import pytest

from esperd.leyline.keyring import KeyRing
from esperd.leyline.verify import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, RequestRefused
from esperd.leyline.vocabulary import Permission
from tests.unit.leyline.requests import AUDIENCE, EPOCH, PEER, RETIRING, REVOKED, Desk, Envelope, make_key


def refusal(desk: Desk, envelope: Envelope, **call: Any) -> RequestRefused:
    """The refusal of an envelope that must not pass."""
    with pytest.raises(RequestRefused) as caught:
        desk.verify(envelope, **call)
    return caught.value


def test_genuine_request_passes_with_the_very_bytes_that_were_signed() -> None:
    """What was signed is what is handed on: principal, payload object and its hash."""
    desk = Desk()
    envelope = desk.sign(b"as it came")
    verified = desk.verify(envelope)
    assert (verified.key_id, verified.principal) == ("policy-1", "principal of policy-1")
    assert verified.payload is envelope.payload
    assert verified.payload_sha256 == hashlib.sha256(b"as it came").digest()


@pytest.mark.parametrize("part", ["header", "payload"])
def test_check_1_size(part: str) -> None:
    """Header over 1 KiB and payload over 1 MiB are refused before anything is computed."""
    desk = Desk()
    limit = {"header": MAX_HEADER_BYTES, "payload": MAX_PAYLOAD_BYTES}[part]
    envelope = desk.sign()
    setattr(envelope, part, bytes(limit + 1))
    refused = refusal(desk, envelope)
    assert refused.reason == "ENVELOPE_TOO_LARGE"
    assert refused.metadata == {"part": part, "size": str(limit + 1), "limit": str(limit)}


def test_largest_allowed_payload_passes() -> None:
    """A payload of exactly 1 MiB is allowed."""
    desk = Desk()
    assert desk.verify(desk.sign(bytes(MAX_PAYLOAD_BYTES))).payload_sha256


def test_check_2_throttle() -> None:
    """Twenty refused signatures in a minute close the door for that peer, good signatures included, for a time."""
    desk = Desk()
    for _ in range(20):
        forged = desk.sign()
        forged.signature = bytes(32)
        assert refusal(desk, forged).reason == "SIGNATURE_INVALID"
    refused = refusal(desk, desk.sign())
    assert refused.reason == "AUTH_THROTTLED"
    wait_s = float(refused.metadata["retry_after_s"])
    assert wait_s == pytest.approx(3.0)
    assert desk.verify(desk.sign(), peer="ipv4:127.0.0.2:9")
    desk.clocks.pass_time(wait_s + 0.01)
    assert desk.verify(desk.sign())


def test_unix_peers_share_a_name_but_not_a_bucket() -> None:
    """On a Unix socket forgeries in one key's name slow forgers of that key, and neither its holder nor any other."""
    desk = Desk([make_key(), make_key("operator-1", bytes(range(1, 33)))])
    for _ in range(25):
        forged = desk.sign()
        forged.signature = bytes(32)
        refused = refusal(desk, forged, peer="unix:")
    assert refused.reason == "AUTH_THROTTLED"
    assert float(refused.metadata["retry_after_s"]) > 0
    assert desk.verify(desk.sign(), peer="unix:").key_id == "policy-1"
    operator = make_key("operator-1", bytes(range(1, 33)))
    assert desk.verify(desk.sign(key=operator), peer="unix:").key_id == "operator-1"


def test_a_flood_from_many_connections_locks_nobody_out() -> None:
    """More failing peers than are told apart are slowed together; who proves a key is not one of them."""
    desk = Desk()
    forged = desk.sign()
    forged.signature = bytes(32)
    reasons = [refusal(desk, forged, peer=f"ipv4:127.0.0.1:{port}").reason for port in range(1, 4200)]
    assert (reasons[0], reasons[-1]) == ("SIGNATURE_INVALID", "AUTH_THROTTLED")
    assert desk.verify(desk.sign(), peer="ipv4:10.0.0.7:9").key_id == "policy-1"


def test_check_3_envelope_present() -> None:
    """Without header or signature there is nothing to check."""
    desk = Desk()
    assert refusal(desk, Envelope(b"", b"", b"")).reason == "SIGNATURE_MISSING"
    signed = desk.sign()
    assert refusal(desk, Envelope(signed.header, signed.payload, b"")).reason == "SIGNATURE_MISSING"
    assert refusal(desk, Envelope(b"", signed.payload, signed.signature)).reason == "SIGNATURE_MISSING"


def test_without_a_key_ring_every_signed_call_is_refused() -> None:
    """No key configured means that nothing is accepted, and the caller is told so."""
    desk = Desk(None)
    assert refusal(desk, desk.sign()).reason == "NO_KEYRING"
    desk.verifier.replace_keyring(KeyRing([make_key()]))
    assert desk.verify(desk.sign())


@pytest.mark.parametrize("num_bytes", [0, 15, 33])
def test_check_4_nonce_length(num_bytes: int) -> None:
    """A nonce has 16 to 32 bytes."""
    desk = Desk()
    assert refusal(desk, desk.sign(nonce=bytes(num_bytes))).reason == "ENVELOPE_MALFORMED"


def test_check_4_header_parses() -> None:
    """A header that is no SignedHeader is refused, and says no more of itself in the audit log than that."""
    desk = Desk()
    signed = desk.sign()
    refused = refusal(desk, Envelope(b"\xff\xff", signed.payload, signed.signature))
    assert (refused.reason, refused.key_id) == ("ENVELOPE_MALFORMED", "")


def test_check_5_unknown_key_and_wrong_signature_look_alike() -> None:
    """The caller cannot tell an unknown key from a wrong signature; the audit log can."""
    desk = Desk()
    unknown = refusal(desk, desk.sign(key=make_key("nobody")))
    forged = desk.sign()
    forged.signature = bytes(32)
    wrong = refusal(desk, forged)
    assert (unknown.reason, unknown.message, unknown.metadata) == (wrong.reason, wrong.message, wrong.metadata)
    assert (unknown.audit_cause, wrong.audit_cause) == ("unknown key", "wrong signature")


def test_the_dummy_key_opens_nothing() -> None:
    """A request signed with the dummy secret of unknown keys is refused like any other."""
    from esperd.leyline.verify import _DUMMY_SECRET

    desk = Desk()
    assert refusal(desk, desk.sign(key=make_key("nobody", _DUMMY_SECRET))).reason == "SIGNATURE_INVALID"


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"declared": REVOKED}, "revoked"),
        ({"not_before_unix_s": 1_767_225_601.0}, "prepared"),
        ({"not_after_unix_s": 1_767_225_600.0}, "expired"),
    ],
)
def test_check_6_key_state(facts: dict[str, Any], state: str) -> None:
    """Revoked, prepared and expired keys are refused, with the state, once the signature is proven."""
    desk = Desk([make_key(**facts)])
    refused = refusal(desk, desk.sign())
    assert (refused.reason, refused.metadata["state"]) == ("KEY_NOT_ACTIVE", state)


def test_retiring_key_is_accepted() -> None:
    """A key on its way out still opens."""
    assert Desk([make_key(declared=RETIRING)]).verify(Desk().sign()).key_id


def test_check_7_audience_method_epoch_in_this_order() -> None:
    """A request for another daemon, method or start is refused; a stale epoch names the current one."""
    desk = Desk()
    elsewhere: dict[str, Any] = {"audience": "esperd-2", "method": "/x/Y", "epoch": bytes(16)}
    assert refusal(desk, desk.sign(**elsewhere)).reason == "AUDIENCE_MISMATCH"
    assert refusal(desk, desk.sign(**{**elsewhere, "audience": AUDIENCE})).reason == "METHOD_MISMATCH"
    stale = refusal(desk, desk.sign(epoch=bytes(16)))
    assert (stale.reason, stale.metadata["epoch"]) == ("EPOCH_STALE", EPOCH.hex())


@pytest.mark.parametrize(("offset_s", "passes"), [(-60.0, True), (60.0, True), (-60.5, False), (60.5, False)])
def test_check_8_freshness(offset_s: float, passes: bool) -> None:
    """The issue time is within 60 s of the daemon's clock, which a refusal reports."""
    desk = Desk()
    envelope = desk.sign(issue_unix_s=desk.clocks.wall_s + offset_s)
    if passes:
        assert desk.verify(envelope)
    else:
        refused = refusal(desk, envelope)
        assert refused.reason == "TIMESTAMP_OUT_OF_WINDOW"
        assert float(refused.metadata["server_time"]) == desk.clocks.wall_s


def test_check_9_replay_and_capacity() -> None:
    """The same envelope passes once; a full store refuses with the time until it has room, and forgets nothing."""
    desk = Desk(per_key=2)
    envelopes = [desk.sign(), desk.sign()]
    for envelope in envelopes:
        desk.verify(envelope)
    full = refusal(desk, desk.sign())
    assert (full.reason, full.metadata["retry_after_s"]) == ("NONCE_CAPACITY", "300.000")
    assert [refusal(desk, envelope).reason for envelope in envelopes] == ["NONCE_REPLAYED"] * 2


def test_check_10_permission() -> None:
    """A key without the method's permission is refused by name, after everything else."""
    desk = Desk()
    refused = refusal(desk, desk.sign(), permission=Permission.EMERGENCY)
    assert refused.reason == "PERMISSION_REQUIRED"
    assert refused.metadata == {"principal": "principal of policy-1", "permission": "emergency"}
    assert refused.principal == "principal of policy-1"


def test_every_check_comes_before_the_next() -> None:
    """One envelope that breaks every rule loses its faults one by one, and meets the reasons in the design's order."""
    desk = Desk([make_key(declared=REVOKED)])
    spent = desk.sign()
    Desk.verify(Desk([make_key()]), spent)
    expected = ["ENVELOPE_TOO_LARGE", "SIGNATURE_MISSING", "ENVELOPE_MALFORMED", "SIGNATURE_INVALID", "KEY_NOT_ACTIVE"]
    bad_header: dict[str, Any] = {"audience": "x", "method": "x", "epoch": b"x", "issue_unix_s": 5.0}
    fully_bad = desk.sign(**bad_header)
    trials = [
        Envelope(bytes(2000), b"", b""),
        Envelope(b"", b"", b""),
        Envelope(b"\xff", b"", b"x"),
        Envelope(fully_bad.header, fully_bad.payload, b"x"),
        fully_bad,
    ]
    assert [refusal(desk, trial, permission=Permission.ADMIN).reason for trial in trials] == expected
    desk.verifier.replace_keyring(KeyRing([make_key()]))
    order = []
    for fixed in ("", "audience", "method", "epoch", "issue_unix_s"):
        bad_header.pop(fixed, None)
        order.append(refusal(desk, desk.sign(**bad_header), permission=Permission.ADMIN).reason)
    assert order == [
        "AUDIENCE_MISMATCH",
        "METHOD_MISMATCH",
        "EPOCH_STALE",
        "TIMESTAMP_OUT_OF_WINDOW",
        "PERMISSION_REQUIRED",
    ]


def test_refused_before_the_nonce_leaves_the_nonce_unused() -> None:
    """A refusal for the epoch or the time does not use up the nonce of an envelope that is sent again."""
    desk = Desk()
    refusal(desk, desk.sign(epoch=bytes(16)))
    refusal(desk, desk.sign(issue_unix_s=5.0))
    assert len(desk.nonces) == 0


def test_refusals_of_proven_signatures_are_not_failures_of_the_peer() -> None:
    """Only what is not proven counts against a peer: a stale epoch or a lacking permission never throttles."""
    desk = Desk()
    for _ in range(30):
        refusal(desk, desk.sign(epoch=bytes(16)), peer=PEER)
    assert desk.verify(desk.sign(), peer=PEER)


@pytest.mark.parametrize("key_id", ["x" * 65, "a\nforged line", "\x1b[2J"])
def test_claimed_key_id_is_fit_for_a_log(key_id: str) -> None:
    """What an unproven request calls itself cannot forge or flood the audit log."""
    desk = Desk()
    refused = refusal(desk, desk.sign(key_id=key_id), peer="unix:")
    assert (refused.reason, refused.key_id) == ("SIGNATURE_INVALID", "(not a key id)")
