"""The file of revoked keys: it comes back as it was written, and a damaged one is never taken for an empty one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.leyline.errors import EsperdError
from esperd.leyline.revocations import Revocation, add_revocation, read_revocations

FIRST = Revocation("policy-1", "policy", "its laptop was lost", 1.8e9)


def test_no_file_means_nobody(tmp_path: Path) -> None:
    """A daemon that has never revoked a key has no file."""
    assert read_revocations(tmp_path / "revoked-keys.toml") == ()


def test_revocations_add_up(tmp_path: Path) -> None:
    """Oldest first, mode 0600, each key once with its first reason."""
    path = tmp_path / "revoked-keys.toml"
    second = Revocation("operator-1", "operator", "", 1.8e9 + 0.5)
    for revocation in (FIRST, second, Revocation("policy-1", "policy", "again", 1.9e9)):
        add_revocation(path, revocation)
    assert read_revocations(path) == (FIRST, second)
    assert path.stat().st_mode & 0o777 == 0o600


@given(reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_reason_comes_back(tmp_path_factory: pytest.TempPathFactory, reason: str) -> None:
    """Quotes, line breaks and control characters of a reason neither break the file nor change."""
    path = tmp_path_factory.mktemp("r") / "revoked-keys.toml"
    written = Revocation("policy-1", "policy", reason, 1.8e9)
    add_revocation(path, written)
    assert read_revocations(path) == (written,)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "",
        "other = 1\n",
        "revoked = 3\n",
        "[[revoked]]\nkey_id = 'a'\n",
        "[[revoked]]\nkey_id = 'a'\nprincipal = 'p'\nreason = ''\ntime = 2026-01-01T00:00:00\n",
        "[[revoked]]\nkey_id = 'a'\nprincipal = 'p'\nreason = ''\ntime = 2026-01-01T00:00:00Z\nmore = 1\n",
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    """Who cannot read whom to refuse must not start; nor is it written over."""
    path = tmp_path / "revoked-keys.toml"
    path.write_text(text)
    path.chmod(0o600)
    for action in (lambda: read_revocations(path), lambda: add_revocation(path, FIRST)):
        with pytest.raises(EsperdError) as caught:
            action()
        assert caught.value.reason == "KEYRING_INVALID"
    assert path.read_text() == text


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Its mode is judged as a key ring's is."""
    path = tmp_path / "revoked-keys.toml"
    add_revocation(path, FIRST)
    path.chmod(0o666)
    with pytest.raises(EsperdError, match="0600"):
        read_revocations(path)
