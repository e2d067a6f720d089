"""The validator's key."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.urza.validator_key import VALIDATOR_KEY_NAME, validator_key


def test_it_is_made_once(tmp_path: Path) -> None:
    """A second start finds the same; only its owner may read it."""
    path = tmp_path / VALIDATOR_KEY_NAME
    made = validator_key(path, os.urandom)
    assert validator_key(path, os.urandom) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.key_id == f"validator-{hashlib.sha256(made.secret.reveal()).hexdigest()[:8]}"
    assert len(made.secret.reveal()) == 32


@pytest.mark.parametrize("text", ["", "xyz", "00" * 31], ids=["empty", "not hexadecimal", "short"])
def test_a_file_that_holds_something_else(tmp_path: Path, text: str) -> None:
    """It is refused, not replaced: reports would silently count no longer."""
    path = tmp_path / VALIDATOR_KEY_NAME
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(EsperdError) as caught:
        validator_key(path, os.urandom)
    assert caught.value.reason == "KEY_FILE_INVALID"
    assert path.read_text() == text


def test_a_file_that_others_may_read(tmp_path: Path) -> None:
    """It is no secret any more."""
    path = tmp_path / VALIDATOR_KEY_NAME
    path.write_text("ab" * 32)
    path.chmod(0o644)
    with pytest.raises(EsperdError, match="0644"):
        validator_key(path, os.urandom)
