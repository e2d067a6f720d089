"""Page sizes of lists: a default, and a limit that is told rather than silently applied."""

from esperd.control.errors import InvalidRequest, Violation

DEFAULT_PAGE_ROWS = 50
MAX_PAGE_ROWS = 1000


def page_size(asked: int) -> int:
    """Rows of a page. Raises InvalidRequest REQUEST_INVALID beyond the limit."""
    if asked > MAX_PAGE_ROWS:
        raise InvalidRequest([Violation("page_size", f"must be at most {MAX_PAGE_ROWS}")], "REQUEST_INVALID")
    return asked or DEFAULT_PAGE_ROWS
