"""Page sizes of lists: what stands for 0. The contract states the limit."""

DEFAULT_PAGE_ROWS = 50


def page_size(asked: int) -> int:
    """Rows of a page."""
    return asked or DEFAULT_PAGE_ROWS
