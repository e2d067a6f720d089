"""How many kernels one message may hold."""

from esperd.control.kernel_service import PAGE_BYTES, pages


def test_neither_too_many_nor_too_large() -> None:
    """In order, nothing left out; a part that is too large by itself comes alone."""
    small, large = b"s", b"l" * (PAGE_BYTES - 1)
    parts = [small, small, small, large, small, large + b"ll", small]
    found = list(pages(parts, 2, len))
    assert found == [[small, small], [small, large], [small], [large + b"ll"], [small]]
    assert list(pages([], 2, len)) == []
