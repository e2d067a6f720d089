"""Turns what went wrong into one line on stderr and an exit code: the only place where the command lines do so.

Exit codes: 0 fine, 1 refused or failed, 2 bad usage (click's own), 3 no daemon answered, 130 interrupted.
"""

from collections.abc import Callable
from typing import ClassVar, ParamSpec

import click

from esper.text import plain

REFUSED = 1
UNREACHABLE = 3
INTERRUPTED = 130

P = ParamSpec("P")


class Failed(click.ClickException):
    """The daemon refused, or something failed."""

    exit_code: ClassVar[int] = REFUSED

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        """Print `error: CODE: what happened. what to do next.` on stderr."""
        click.echo(f"error: {self.message}", err=True)


class NoAnswer(Failed):
    """No daemon answered."""

    exit_code = UNREACHABLE


def run_reporting(action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run an action; a refusal of the daemon becomes its text and exit code.

    Raises:
        Failed: the daemon refused, or a file cannot be used; NoAnswer when there was no daemon.
        SystemExit: interrupted by the user, or the reader of a pipe has gone.
    """
    from esper.client.errors import LeylineError, Unreachable

    try:
        action(*args, **kwargs)
    except Unreachable as error:
        raise NoAnswer(plain(error.message)) from error
    except LeylineError as error:
        raise Failed(plain(with_violations(error.message, error.violations))) from error
    except BrokenPipeError:
        _close_stdout()
        raise SystemExit(0) from None
    except OSError as error:
        raise Failed(f"{error.filename or 'the system'}: {error.strerror or error}") from error
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def with_violations(message: str, violations: tuple[tuple[str, str], ...]) -> str:
    """The message, with what is wrong with each field."""
    missing = [f"{name}: {what}" for name, what in violations if what not in message]
    return f"{message} ({'; '.join(missing)})" if missing else message


def _close_stdout() -> None:
    """The reader of our pipe has gone (`esperctl watch | head`): leave without Python's complaint at exit."""
    import os
    import sys

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
