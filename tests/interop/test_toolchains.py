"""What is missing is told: skipped where somebody works, failed under CI."""

import pytest

from tests.interop.toolchains import require


def test_a_missing_tool_skips_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a compiler runs the other tests."""
    monkeypatch.delenv("CI", raising=False)
    require("sh")
    with pytest.raises(pytest.skip.Exception, match="no no-such-compiler here"):
        require("sh", "no-such-compiler")


def test_under_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the tools are installed; a skip would be taken for proof."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="every client is tested"):
        require("no-such-compiler")
