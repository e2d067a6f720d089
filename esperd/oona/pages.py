"""Page tokens: where a list goes on, as text that callers pass back unread.

Pure functions. A token is the name of its list and a journal revision, in URL-safe base64.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TypeVar

from esperd.oona.failures import PageTokenInvalid
from esperd.oona.journal import Page

RowT = TypeVar("RowT")


def check_page_size(page_size: int) -> None:
    """Refuse a page size that is not positive."""
    if page_size < 1:
        raise ValueError(f"a page holds at least 1 row, not {page_size}")


def encode_token(list_name: str, revision: int) -> str:
    """The token of a list that goes on after this journal revision."""
    return base64.urlsafe_b64encode(f"{list_name}:{revision}".encode()).decode("ascii")


def decode_token(list_name: str, token: str) -> int | None:
    """The journal revision after which the list goes on, None for its beginning.

    Raises:
        PageTokenInvalid: the token is not of this list.
    """
    if not token:
        return None
    try:
        name, _, revision = base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        raise PageTokenInvalid from None
    # Eighteen digits keep the number within SQLite's 64 bits.
    if name != list_name or re.fullmatch("0|[1-9][0-9]{0,17}", revision) is None:
        raise PageTokenInvalid
    return int(revision)


def cut_page(list_name: str, found: Sequence[tuple[int, RowT]], page_size: int) -> Page[RowT]:
    """A page of `found`, which holds one row more than the page when the list goes on."""
    rows = tuple(row for _, row in found[:page_size])
    if len(found) <= page_size:
        return Page(rows, "")
    return Page(rows, encode_token(list_name, found[page_size - 1][0]))
