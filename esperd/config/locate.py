"""Where a key stands in a TOML text, so that an error can name its line.

Any thread. Python's TOML reader gives values without places; this looks for headers and keys line by line. Good for
what people write in configuration files; a key it cannot see (inside an inline table, say) has the line of its table.
"""

import re

_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*([A-Za-z0-9_.\-]+|"[^"]*"|'[^']*')\s*(?:\.|=)""")


def locate_keys(text: str) -> dict[str, int]:
    """Dotted name of every table and key that is found, to its line number from 1."""
    places: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            table = _plain(header.group(1))
            places.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            places.setdefault(f"{table}.{_plain(key.group(1))}" if table else _plain(key.group(1)), number)
    return places


def line_of(places: dict[str, int], dotted_name: str) -> int | None:
    """The line of a key, or else of the nearest table around it; None when nothing is known."""
    name = dotted_name
    while name:
        if name in places:
            return places[name]
        name = name.rpartition(".")[0]
    return None


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
