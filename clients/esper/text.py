"""Text that others have written, fit for a terminal."""


def plain(text: str) -> str:
    """Text without control characters, on one line: it must neither move the cursor nor look like a line of ours."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def plain_lines(text: str) -> str:
    """The same for lines that are ours, with what others have written in them."""
    return "\n".join(map(plain, text.split("\n")))
