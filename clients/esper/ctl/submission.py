"""The options that every change has, and how a change is sent and its outcome shown."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from esper import numbers
from esper.ctl import tables, words
from esper.ctl.connection import Where
from esper.ctl.options import timeout_option
from esper.ctl.output import output_option, show
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import command_pb2, vocabulary_pb2

if TYPE_CHECKING:
    from esper.client.sync import Client


@dataclass(frozen=True, slots=True)
class Terms:
    """How a change is asked for."""

    reason: str
    request_id: str
    expected_revision: int
    at_step: int
    at_epoch: bool
    expires_in_s: float
    validate_only: bool
    wait: bool
    timeout_s: float
    output: str

    def apply(self, command: command_pb2.AdaptationCommand) -> command_pb2.AdaptationCommand:
        """Write the terms into a command."""
        command.version = 1
        command.reason = self.reason
        command.request_id = self.request_id
        command.expected_revision = self.expected_revision
        command.validate_only = self.validate_only
        if self.at_step:
            command.apply_at.global_step = self.at_step
        elif self.at_epoch:
            command.apply_at.epoch_boundary = True
        if self.expires_in_s:
            command.expire_time.FromNanoseconds(int((time.time() + self.expires_in_s) * 1e9))
        return command


_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.option("--reason", default="", help="Why, for the journal."),
    click.option("--request-id", default="", help="Your own id: sent again, it changes nothing."),
    click.option("--expected-revision", type=numbers.COUNT64, default=0, help="Only if it still is."),
    click.option("--at-step", type=numbers.POSITIVE64, help="Take effect at this step, not at once."),
    click.option("--at-epoch", is_flag=True, help="Take effect at the next epoch boundary."),
    click.option("--expires-in", "expires_in_s", type=numbers.LIFETIME, metavar="SECONDS",
                 help="Do not take effect later than that."),
    click.option("--validate-only", is_flag=True, help="Check everything, change nothing."),
    click.option("--wait", is_flag=True, help="Wait for the outcome; exit 1 unless it took effect."),
    timeout_option(60.0, "How long --wait waits."),
    output_option,
)  # fmt: skip


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every change; the command gets them as `terms`."""

    @wraps(command)
    def with_terms(
        *args: Any,
        reason: str,
        request_id: str,
        expected_revision: int,
        at_step: int | None,
        at_epoch: bool,
        expires_in_s: float | None,
        validate_only: bool,
        wait: bool,
        timeout_s: float,
        output: str,
        **kwargs: Any,
    ) -> Any:
        if at_step and at_epoch:
            raise click.UsageError("--at-step and --at-epoch exclude each other")
        terms = Terms(
            reason,
            request_id,
            expected_revision,
            at_step or 0,
            at_epoch,
            expires_in_s or 0.0,
            validate_only,
            wait,
            timeout_s,
            output,
        )
        return command(*args, terms=terms, **kwargs)

    wrapped: Callable[..., Any] = with_terms
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def submit(where: Where, terms: Terms, command: command_pb2.AdaptationCommand) -> None:
    """Send one command and show what became of it.

    Raises:
        Failed: the daemon refused, or with `--wait` it did not take effect.
    """

    def send() -> None:
        with where.client() as client:
            accepted = client.submit(terms.apply(command))
            settle(client, terms, accepted)

    run_reporting(send)


def settle(client: "Client", terms: Terms, accepted: command_pb2.Command) -> None:
    """Wait for the outcome if that was asked, and show the command; what was only validated has none."""
    is_awaited = terms.wait and not terms.validate_only
    command = client.outcome(accepted, timeout_s=terms.timeout_s) if is_awaited else accepted
    show(command, terms.output, lambda: tables.command(command))
    raise_unless_fine(command, terms)


def raise_unless_fine(command: command_pb2.Command, terms: Terms) -> None:
    """A refusal is an error whether or not anybody waits; not yet is one only for those who wait.

    Raises:
        Failed: with the daemon's own words.
    """
    if command.state in (vocabulary_pb2.COMMAND_STATE_APPLIED, vocabulary_pb2.COMMAND_STATE_UNSPECIFIED):
        return  # UNSPECIFIED answers --validate-only: nothing was to take effect
    if command.state != vocabulary_pb2.COMMAND_STATE_ACCEPTED:
        raise Failed(command.error.message or f"the command is {words.command_state(command.state)}")
    if terms.wait:
        raise Failed(
            f"the command {command.command_id} has no outcome after {terms.timeout_s:g} s. "
            f"It may still take effect; look again with esperctl command get {command.command_id}."
        )
