"""The parts of the SDK without I/O: attempts, cursor, signer, key file, error decoding, the table of calls."""

import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
from esper.client import calls
from esper.client.attempts import Attempts, backoff_s
from esper.client.credentials import Credentials
from esper.client.cursor import Cursor
from esper.client.errors import (
    _LOCAL,
    LeylineError,
    Unreachable,
    _plain_error,
    decode_rpc_error,
    from_command_error,
    local_error,
)
from esper.client.plans import roll_back
from esper.client.signing import Signer, sign
from esper.leyline.v1.command_pb2 import CommandError
from esper.leyline.v1.envelope_pb2 import SignedHeader
from esper.leyline.v1.policy_service_pb2 import PolicyDecision
from esper.leyline.v1.server_service_pb2 import GetServerInfoResponse
from google.protobuf import any_pb2, descriptor_pool
from google.rpc import error_details_pb2, status_pb2

from esperd.leyline.errors import CATALOGUE
from esperd.leyline.keyring_edit import new_key, write_client_file
from esperd.leyline.method_policy import read_method_policies
from esperd.leyline.verify import mac
from esperd.leyline.vocabulary import Permission

CREDENTIALS = Credentials("k", "p", bytes(range(32)))
CUT = local_error("DAEMON_UNREACHABLE", address="a", detail="gone")


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def new_signer(clock: Clock, credentials: Credentials = CREDENTIALS) -> Signer:
    """A signer that knows its daemon."""
    signer = Signer(credentials, wall_clock=clock, random_bytes=lambda count: bytes(count))
    signer.learn(GetServerInfoResponse(server_id="d", epoch=b"old"))
    return signer


def refused(status: str, reason: str = "X", retry_after_s: float | None = None, **metadata: str) -> LeylineError:
    """A refusal of the daemon."""
    return LeylineError(status, reason, "text", metadata, retry_after_s)


def test_table_of_calls_is_the_contract() -> None:
    """Every method is there once, with the right types, and signed where the proto file says so."""
    policies = read_method_policies()
    assert sorted(call.method for call in calls.CALLS) == sorted(policies)
    pool = descriptor_pool.Default()
    for call in calls.CALLS:
        service, name = call.method.removeprefix("/").split("/")
        method = pool.FindServiceByName(service).methods_by_name[name]
        assert call.request_type.DESCRIPTOR is method.input_type
        assert call.answer_type.DESCRIPTOR is method.output_type
        assert call.signed == policies[call.method].signed
        assert not call.signed or "envelope" in method.input_type.fields_by_name
    assert calls.DECISION_STREAM.payload_type is PolicyDecision


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: unix:/x: No such file or directory",
            "no such socket",
        ),
        ("failed to connect to all addresses; last error: UNAVAILABLE: Connection refused", "nothing listens there"),
        ("recvmsg:Connection reset by peer", "the connection was cut"),
        ("some news of a later gRPC", "it cannot be reached"),
    ],
)
def test_what_grpc_says_is_told_in_plain_words(said: str, told: str) -> None:
    """Whoever has no daemon wants to know what to do, not what the transport is made of."""
    text = _plain_error(grpc.StatusCode.UNAVAILABLE, said, "unix:/x").message
    assert told in text
    assert said not in text
    assert "Start one with esperd serve FILE" in text
    assert "in time" in _plain_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", "unix:/x").message


def test_a_rollback_names_one_target() -> None:
    """Step 0 is one; none or two are a mistake of the program."""
    assert roll_back("", 0, "", 0, "", "r").rollback.WhichOneof("target") == "global_step"
    assert roll_back("", None, "3", 1, "why", "r").rollback.before_seed_id == "3"
    for wrong in (("", None, ""), ("c", 1, ""), ("c", None, "3")):
        with pytest.raises(ValueError, match="exactly one"):
            roll_back(*wrong, 0, "", "r")


def test_sign_is_the_scheme_of_the_design() -> None:
    """The header holds what was given; the MAC is over exactly the bytes of header and payload."""
    envelope = sign(CREDENTIALS, audience="d", epoch=b"e", method="/m", payload=b"p", now=12.5, nonce=b"n" * 16)
    header = SignedHeader.FromString(envelope.header)
    assert (header.key_id, header.audience, header.epoch, header.method) == ("k", "d", b"e", "/m")
    assert (header.issue_time.seconds, header.issue_time.nanos, header.nonce) == (12, 500_000_000, b"n" * 16)
    assert envelope.signature == mac(CREDENTIALS.secret, envelope.header, b"p")


def test_a_call_that_a_leaving_daemon_ended_is_sent_again():
    """gRPC calls it CANCELLED and gives no reason; a command that somebody cancelled has one, and is not sent again."""
    clock = Clock()
    attempts = Attempts(signer=new_signer(clock), timeout_s=10, monotonic=clock)
    assert attempts.after(LeylineError("CANCELLED", "CANCELLED", "")) > 0.0
    with pytest.raises(LeylineError):
        attempts.after(LeylineError("CANCELLED", "COMMAND_CANCELLED", ""))


def test_reads_are_not_tried_again_after_a_cut_and_changes_are() -> None:
    """Backoff doubles up to two seconds and ends at the deadline."""
    clock = Clock()
    with pytest.raises(Unreachable):
        Attempts(signer=None, timeout_s=10, monotonic=clock).after(CUT)
    attempts = Attempts(signer=new_signer(clock), timeout_s=10, monotonic=clock)
    assert [attempts.after(CUT) for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0])
    clock.now_s = 9.0
    assert attempts.remaining_s() == 1.0
    with pytest.raises(Unreachable):
        attempts.after(CUT)
    assert backoff_s(10**6) == 2.0


def test_epoch_and_time_are_adopted_once_each() -> None:
    """A second refusal of the same kind is final; a report that cannot be read is, too."""
    clock = Clock()
    signer = new_signer(clock)
    attempts = Attempts(signer=signer, timeout_s=10, monotonic=clock)
    stale = refused("UNAUTHENTICATED", "EPOCH_STALE", epoch="6e6577")
    late = refused("UNAUTHENTICATED", "TIMESTAMP_OUT_OF_WINDOW", server_time="5000.5")
    assert attempts.after(stale) == attempts.after(late) == 0.0
    header = SignedHeader.FromString(signer.sign("/m", b"").header)
    assert (header.epoch, header.issue_time.seconds) == (b"new", 5000)
    for error in (stale, late, refused("UNAUTHENTICATED", "EPOCH_STALE", epoch="xyz")):
        with pytest.raises(LeylineError):
            attempts.after(error)
    with pytest.raises(LeylineError):
        Attempts(signer=new_signer(clock), timeout_s=9, monotonic=clock).after(refused("", "EPOCH_STALE"))


@pytest.mark.parametrize("reason", ["KEY_NOT_ACTIVE", "SIGNATURE_INVALID"])
def test_a_refused_key_is_exchanged_for_its_successor(tmp_path: Path, reason: str) -> None:
    """Its file is read again: with another key in it each call is signed again once, also those that were under way."""
    clock, path = Clock(), tmp_path / "policy.key"
    old, new = (new_key("policy", [Permission.COMMAND], 0) for _ in range(2))
    write_client_file(path, old)
    signer = new_signer(clock, Credentials.load(path))
    before, beside = (Attempts(signer=signer, timeout_s=10, monotonic=clock) for _ in range(2))
    error = refused("UNAUTHENTICATED", reason, state="revoked")
    with pytest.raises(LeylineError):
        Attempts(signer=signer, timeout_s=10, monotonic=clock).after(error)
    path.unlink()
    with pytest.raises(LeylineError) as caught:
        Attempts(signer=signer, timeout_s=10, monotonic=clock).after(error)
    assert caught.value is error, "a file that is gone is not the news"
    write_client_file(path, new)
    assert before.after(error) == beside.after(error) == 0.0
    assert signer.key_id == new.key_id
    for attempts in (before, beside, Attempts(signer=signer, timeout_s=10, monotonic=clock)):
        with pytest.raises(LeylineError):
            attempts.after(error)


def test_credentials_without_a_file_have_no_successor() -> None:
    """Nothing is read, and the refusal is final."""
    clock = Clock()
    with pytest.raises(LeylineError):
        Attempts(signer=new_signer(clock), timeout_s=10, monotonic=clock).after(refused("", "KEY_NOT_ACTIVE"))


@pytest.mark.parametrize(
    ("status", "retry_after_s", "wait_s"),
    [
        ("UNAVAILABLE", 2.0, 2.0),
        ("RESOURCE_EXHAUSTED", 0.0, 0.0),
        ("", 1.0, 1.0),
        ("UNAVAILABLE", None, None),
        ("UNAVAILABLE", 10.0, None),
        ("ABORTED", 1.0, None),
        ("UNAUTHENTICATED", 1.0, None),
    ],
)
def test_only_a_stated_time_on_a_passing_condition_is_waited_for(
    status: str, retry_after_s: float | None, wait_s: float | None
) -> None:
    """UNAVAILABLE and RESOURCE_EXHAUSTED with RetryInfo inside the deadline, also inside a stream; nothing else."""
    attempts = Attempts(signer=None, timeout_s=10, monotonic=Clock())
    error = refused(status, retry_after_s=retry_after_s)
    if wait_s is None:
        with pytest.raises(LeylineError):
            attempts.after(error)
    else:
        assert attempts.after(error) == wait_s


def test_cursor_gives_up_after_silence() -> None:
    """It tries for `reconnect_s` after the last message, keeps the last token, and begins anew with each message."""
    clock = Clock()
    cursor = Cursor(resume_token=b"t0", reconnect_s=5.0, monotonic=clock)
    with pytest.raises(Unreachable):
        cursor.after_error(CUT)
    cursor.saw(GetServerInfoResponse())
    assert cursor.resume_token == b"t0"
    clock.now_s = 4.0
    assert cursor.after_error(CUT) == pytest.approx(0.1)
    assert cursor.after_end() == pytest.approx(0.2)
    assert cursor.after_error(refused("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS", 3.0)) == 3.0
    clock.now_s = 5.0
    assert cursor.after_end() is None
    with pytest.raises(LeylineError):
        cursor.after_error(refused("OUT_OF_RANGE", "REVISION_COMPACTED"))


def test_command_error_keeps_its_facts() -> None:
    """A refusal inside a stream reads like one of a call."""
    error = from_command_error(CommandError(reason="R", message="m", metadata={"retry_after_s": "1.5", "a": "b"}))
    assert (error.reason, error.retry_after_s, error.metadata["a"], str(error)) == ("R", 1.5, "b", "m")
    assert from_command_error(CommandError(metadata={"retry_after_s": "soon"})).retry_after_s is None


def test_own_errors_use_the_words_of_the_catalogue() -> None:
    """The SDK cannot import the daemon's catalogue, so it is held to it here."""
    for reason, (status, text) in _LOCAL.items():
        entry = CATALOGUE[reason]
        assert (status, text) == (entry.status, f"{entry.code}: {entry.happened} {entry.next_step}")
        assert status in grpc.StatusCode.__members__


def test_key_file_of_the_daemon_is_read(tmp_path: Path) -> None:
    """What `write_client_file` writes, `Credentials.load` reads."""
    key = new_key("policy", [Permission.COMMAND], 0)
    write_client_file(tmp_path / "k", key, "unix:/x.sock")
    loaded = Credentials.load(tmp_path / "k")
    assert loaded == Credentials(key.key_id, "policy", key.secret.reveal(), "unix:/x.sock")
    assert key.secret.reveal().hex() not in repr(loaded)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("key_id = ", "not TOML"),
        ('principal = "p"\nsecret = "00"', "field key_id is missing"),
        ('key_id = "k"\nprincipal = "p"\nsecret = "zz"', "field secret is not hexadecimal"),
        ('key_id = "k"\nprincipal = "p"\nsecret = "00ff"', "field secret has 2 bytes"),
        ('key_id = "k"\nprincipal = "p"\nsecret = "00"\nport = 3', "field port is unknown"),
        (f'key_id = "k"\nprincipal = "p"\nsecret = "{"0f" * 32}"\naddress = 3', "field address is not text"),
    ],
)
def test_bad_key_file_is_refused_by_field(tmp_path: Path, text: str, says: str) -> None:
    """The field is named, the catalogue's code is there."""
    path = tmp_path / "k"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(LeylineError, match=says) as caught:
        Credentials.load(path)
    assert caught.value.reason == "KEY_FILE_INVALID"
    assert str(caught.value).startswith("E-CFG-004: The key file ")


def test_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Mode 0600, a regular file, and there at all."""
    path = tmp_path / "k"
    path.write_text("")
    path.chmod(0o640)
    for bad, says in ((path, "mode is 0640"), (tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(LeylineError, match=says):
            Credentials.load(bad)


def test_signing_needs_an_introduction() -> None:
    """Without knowing the daemon there is nothing to address."""
    with pytest.raises(RuntimeError, match="learn"):
        Signer(CREDENTIALS, wall_clock=Clock(), random_bytes=bytes).sign("/m", b"")


def test_importing_the_sdk_stays_light() -> None:
    """Neither torch nor numpy nor the daemon comes with it; `esper.client` alone does not even load grpc."""
    code = (
        "import sys, esper.client; assert 'grpc' not in sys.modules; import esper.client.aio, esper.client.sync; "
        "bad = {'torch', 'numpy', 'esperd'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_long_call_is_not_tried_for_long_once_the_daemon_has_gone() -> None:
    """An export may take ten minutes, but a daemon that drains and does not come back is told of in seconds."""
    clock = Clock()
    attempts = Attempts(signer=new_signer(clock), timeout_s=610, monotonic=clock, retry_s=10)
    clock.now_s += 300.0
    draining = refused("UNAVAILABLE", "DRAINING", retry_after_s=2.0)
    assert attempts.after(draining) == 2.0
    clock.now_s += 2.0
    assert attempts.after(CUT) == pytest.approx(0.1)
    clock.now_s += 7.0
    assert attempts.after(CUT) == pytest.approx(0.2)
    assert attempts.remaining_s() == pytest.approx(301.0)
    clock.now_s += 1.0
    with pytest.raises(Unreachable):
        attempts.after(CUT)


def test_details_that_cannot_be_read_hide_no_error() -> None:
    """A proxy or a later daemon may send details that are damaged: what can be read counts, the rest is left out."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="SITE_UNKNOWN", domain="leyline.esper.dev"))
    damaged = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff")
    status = status_pb2.Status(code=5, message="E-SITE-001: no such site", details=[damaged, info])
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    error = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "details")
    decoded = decode_rpc_error(error, "here")
    assert (decoded.reason, decoded.retry_after_s) == ("SITE_UNKNOWN", None)
