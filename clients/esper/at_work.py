"""What processes that stay with a daemon share: options, log, directory, how they leave, patience.

The process's own event loop; the log and the directory are made before it runs. Knows neither policies nor kernels.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from esper import numbers
from esper.client.attempts import backoff_s
from esper.client.errors import LeylineError, Unreachable

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def session_options(command: CommandT) -> CommandT:
    """The options of every such process: how long its sessions may take to open, and its log."""
    for option in reversed(_SESSION_OPTIONS):
        command = option(command)
    return command


_SESSION_OPTIONS = (
    click.option("--connect-timeout", type=numbers.SECONDS, default=10.0, show_default=True, metavar="SECONDS",
                 help="How long the first session may take to open."),
    click.option("--reconnect-timeout", type=numbers.SECONDS, default=300.0, show_default=True, metavar="SECONDS",
                 help="How long a lost session may take to open again."),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning",
                 show_default=True, help="Least serious log line on stderr."),
)  # fmt: skip


def set_up_log(level: str) -> None:
    """Log lines of this level and more serious ones go to stderr."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


def state_directory(name: str) -> Path:
    """The state directory that systemd gave, else the user's, under this name."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.split(":")[0])
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "esper" / name


async def until_asked_to_leave(work: Coroutine[None, None, None], log: structlog.typing.FilteringBoundLogger) -> None:
    """Work until that is done or a SIGTERM or SIGINT asks to leave, which cancels it. Raises what the work raises."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
        log.info("asked to leave")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class Patience:
    """How long a process waits for its daemon: another time for the first session than for one that was lost."""

    def __init__(
        self,
        connect_s: float,
        reconnect_s: float,
        passing: Collection[str],
        *,
        least_after_refusal_s: float = 0.0,
        monotonic: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Begin to wait for the first session.

        Args:
            connect_s: how long that may take to open.
            reconnect_s: how long a lost one may take to open again.
            passing: reasons of refusals that another try may not meet again.
            least_after_refusal_s: the least wait after a refusal, which may come as soon as a session is open.
            monotonic: seconds.
            log: hears of failures.
        """
        self._reconnect_s = reconnect_s
        self._passing = passing
        self._least_after_refusal_s = least_after_refusal_s
        self._monotonic = monotonic
        self._log = log
        self._ends_s = monotonic() + connect_s
        self._was_open = False
        self._num_failures = 0

    def opened(self) -> None:
        """A session is open."""
        self._was_open = True
        self._num_failures = 0

    async def wait(self, error: LeylineError) -> None:
        """Wait before the next try. Raises the error when no other try may do better, or the time is over."""
        if self._was_open:
            self._was_open = False
            self._ends_s = self._monotonic() + self._reconnect_s
        passing = isinstance(error, Unreachable) or error.reason in self._passing or error.retry_after_s is not None
        self._num_failures += 1
        least_s = 0.0 if isinstance(error, Unreachable) else self._least_after_refusal_s
        wait_s = max(backoff_s(self._num_failures), least_s, error.retry_after_s or 0.0)
        if not passing or self._monotonic() + wait_s > self._ends_s:
            raise error
        # Said aloud once: a daemon that restarts is away for many tries.
        say = self._log.warning if self._num_failures == 1 else self._log.info
        say("no session", reason=error.reason, message=error.message, wait_s=round(wait_s, 1))
        await asyncio.sleep(wait_s)
