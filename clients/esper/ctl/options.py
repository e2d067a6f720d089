"""Options that commands of several files have, in the same words everywhere."""

from collections.abc import Callable
from typing import Any

import click

from esper import numbers

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Adds an option to a command."""

reason_option: Option = click.option("--reason", default="", help="Why, for the daemon's log.")


def timeout_option(default_s: float, words: str) -> Option:
    """`--timeout SECONDS`; the command gets it as `timeout_s`."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=numbers.SECONDS,
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help=words,
    )
