"""Shows messages: as protobuf's own JSON mapping, as the same in YAML, or as a plain table.

The JSON is the contract for scripts; tables are for eyes and may change. Tables are aligned text without colour, the
same on a terminal and in a pipe.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from esper.text import plain, plain_lines

FORMATS = ("table", "json", "yaml")
Row = Sequence[object]
F = TypeVar("F", bound=Callable[..., Any])

output_option = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="How the answer is shown."
)


def as_values(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON mapping, with fields that hold their default."""
    found: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return found


def show(message: Message, output: str, table: Callable[[], str]) -> None:
    """Print a message in the asked form."""
    if output == "table":
        click.echo(plain_lines(table()))
    else:
        show_values(as_values(message), output)


def echo_message(message: Message, output: str) -> None:
    """One of many messages: JSON on a line of its own, or a YAML document."""
    if output == "json":
        click.echo(json.dumps(as_values(message)))
    else:
        import yaml

        click.echo("---\n" + yaml.safe_dump(as_values(message), sort_keys=False), nl=False)


def show_values(values: Any, output: str) -> None:
    """Print values as JSON or YAML; messages in them are in protobuf's JSON mapping already."""
    if output == "json":
        click.echo(json.dumps(values, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be taken back.

    Raises:
        click.UsageError: there is nobody to ask, and `--yes` was not given.
        click.Abort: the answer was no.
    """
    if yes:
        return
    if not _is_terminal():
        raise click.UsageError("there is no terminal to ask on; say --yes to go on without a question")
    click.confirm(question, abort=True, err=True)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def columns(header: Sequence[str], rows: Sequence[Row], empty: str) -> str:
    """Aligned columns, or a sentence when there are no rows."""
    if not rows:
        return empty
    cells = [list(header), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def pairs(rows: Sequence[tuple[str, object]]) -> str:
    """Names and values below each other; what has no value is left out."""
    told = [(name, _text(value)) for name, value in rows if value not in (None, "")]
    width = max((len(name) for name, _ in told), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in told)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else plain(str(value))


def moment(time: Timestamp) -> str:
    """`2026-11-20T19:46:20Z`."""
    return time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ")


def number(value: float) -> str:
    """Four significant digits; `-` for what is not measured."""
    return "-" if value != value else f"{value:.4g}"


def size(num_bytes: float) -> str:
    """Bytes in short: 812 B, 6.2 kB, 1.4 GB."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def count(value: float) -> str:
    """A big number in short: 6.2 k, 1.4 M, 3.1 G."""
    for limit, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g} {unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """`4 s`, `3:25`, `2:03:25`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
