"""Page tokens."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.oona.failures import PageTokenInvalid
from esperd.oona.pages import check_page_size, cut_page, decode_token, encode_token


@given(st.integers(0, 10**18 - 1))
def test_a_token_comes_back(revision: int) -> None:
    """Every revision survives; no token means the beginning."""
    assert decode_token("audit", encode_token("audit", revision)) == revision
    assert decode_token("audit", "") is None


@given(st.text(min_size=1))
def test_no_text_breaks_the_decoder(text: str) -> None:
    """Whatever comes in, it is read or refused by name."""
    with contextlib.suppress(PageTokenInvalid):
        assert decode_token("audit", text) is not None


def test_a_token_of_another_list_is_refused() -> None:
    """A token is bound to the list that gave it out."""
    with pytest.raises(PageTokenInvalid):
        decode_token("audit", encode_token("history", 3))


def test_a_page_says_whether_more_follows() -> None:
    """One row more than the page means that the list goes on after the page's last row."""
    page = cut_page("audit", [(4, "a"), (5, "b"), (6, "c")], 2)
    assert (page.rows, decode_token("audit", page.next_page_token)) == (("a", "b"), 5)
    assert cut_page("audit", [(4, "a"), (5, "b")], 2).next_page_token == ""


def test_a_page_has_room() -> None:
    """A page of no rows would never end."""
    with pytest.raises(ValueError, match="at least 1"):
        check_page_size(0)
