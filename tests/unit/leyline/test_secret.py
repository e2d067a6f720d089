"""A secret shows nowhere: not in text, not in a pickle, not in a log line."""

import copy
import pickle
from collections.abc import Callable

import pytest
import structlog
from esper.leyline.v1.command_service_pb2 import SubmitCommandRequest
from esper.leyline.v1.envelope_pb2 import SignedEnvelope

from esperd.leyline.keyring import Key
from esperd.leyline.redact import REDACTED, redact
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import Permission

RAW = b"0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format])
def test_text_is_redacted(show: Callable[[object], str]) -> None:
    """Every way to print a secret, or a key that holds one, hides it."""
    key = Key("k", "p", frozenset({Permission.OBSERVE}), Secret(RAW))
    for shown in (show(Secret(RAW)), show(key)):
        assert "redacted" in shown
        assert RAW.decode() not in shown
        assert RAW.hex() not in shown


def test_pickling_copying_and_hashing_fail() -> None:
    """A secret does not leave by serialization, nor sit in a set."""
    for act in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError):
            act(Secret(RAW))


def test_equality_compares_the_bytes() -> None:
    """Two secrets are equal when their bytes are."""
    assert Secret(RAW) == Secret(bytes(RAW))
    assert Secret(RAW) != Secret(b"x" * 32)
    assert Secret(RAW) != RAW


def test_log_lines_carry_no_secret() -> None:
    """Names, types and messages that carry secrets are replaced, at any depth; the rest stays."""
    envelope = SignedEnvelope(header=b"h" * 20, payload=RAW, signature=RAW)
    event = {
        "event": "refused",
        "step": 3,
        "secret": "abc",
        "Signature": RAW.hex(),
        "key": Secret(RAW),
        "payload": RAW,
        "nested": {"a": [Secret(RAW), {"token": "abc", "x": 1.5}]},
        "request": SubmitCommandRequest(envelope=envelope),
        "envelope_object": envelope,
        "self": None,
    }
    shown = redact(None, "info", event)
    assert shown["event"] == "refused"
    assert (shown["step"], shown["self"]) == (3, None)
    assert shown["secret"] == shown["Signature"] == shown["key"] == REDACTED
    assert shown["nested"] == {"a": [REDACTED, {"token": REDACTED, "x": 1.5}]}
    text = structlog.processors.JSONRenderer()(None, "info", dict(shown))
    for leak in (RAW.decode(), RAW.hex(), "abc"):
        assert leak not in str(text)


def test_a_structure_without_end_is_cut() -> None:
    """A value that contains itself does not hang the log."""
    loop: dict[str, object] = {}
    loop["again"] = loop
    assert REDACTED in str(redact(None, "info", {"event": "x", "loop": loop}))
