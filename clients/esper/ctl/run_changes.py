"""Commands that change the run: pause, resume, start, stop, lr, hyper, breaker."""

from collections.abc import Callable
from typing import Any

import click

from esper import numbers
from esper.ctl.connection import Where
from esper.ctl.options import reason_option, timeout_option
from esper.ctl.output import columns, output_option, show
from esper.ctl.seed_changes import key_values
from esper.ctl.submission import Terms, change_options, settle, submit
from esper.ctl.words import breaker_state
from esper.failures import run_reporting
from esper.leyline.v1 import command_pb2, run_service_pb2, vocabulary_pb2

target_option = click.option(
    "--of", "target", default="host", show_default=True, metavar="OPTIMIZER", help="host, all, or seed:<number>."
)


def _control(name: str, action: Any, text: str) -> Callable[..., Any]:
    @click.command(name, help=text)
    @change_options
    @click.pass_obj
    def ask(where: Where, terms: Terms) -> None:
        run_control = command_pb2.CommandRunControl(action=action)
        submit(where, terms, command_pb2.AdaptationCommand(run_control=run_control))

    return ask


pause = _control("pause", command_pb2.RUN_ACTION_PAUSE, "Hold training at the next safe point.")
resume = _control("resume", command_pb2.RUN_ACTION_RESUME, "Go on training.")


@click.command()
@reason_option
@click.option(
    "--after", "after_run_id", default="", metavar="RUN", help="The run that is over, unless the current one."
)
@click.option("--wait", is_flag=True, help="Wait until the new run is served.")
@timeout_option(60.0, "How long --wait waits.")
@output_option
@click.pass_obj
def start(where: Where, reason: str, after_run_id: str, wait: bool, timeout_s: float, output: str) -> None:
    """Begin a new run, once the current one is over; the daemon ends every stream and serves again."""

    def send() -> None:
        with where.client() as client:
            run_id = client.start_run(reason, after_run_id=after_run_id, wait=wait, timeout_s=timeout_s)
        show(run_service_pb2.StartRunResponse(run_id=run_id), output, lambda: f"run {run_id}")

    run_reporting(send)


@click.command()
@click.option("--reason", default="", help="Why, for the journal.")
@click.option("--request-id", default="", help="Your own id: sent again, it changes nothing.")
@click.option("--wait", is_flag=True, help="Wait until the run is stopping; exit 1 unless it is.")
@timeout_option(60.0, "How long --wait waits.")
@output_option
@click.pass_obj
def stop(where: Where, reason: str, request_id: str, wait: bool, timeout_s: float, output: str) -> None:
    """End the run at the next safe point, after a last validation; the daemon stays up."""
    terms = Terms(reason, request_id, 0, 0, False, 0.0, False, wait, timeout_s, output)

    def send() -> None:
        with where.client() as client:
            settle(client, terms, client.stop_run(reason, request_id=request_id))

    run_reporting(send)


@click.command()
@click.argument("value", type=numbers.FiniteRange(min=0))
@target_option
@change_options
@click.pass_obj
def lr(where: Where, value: float, target: str, terms: Terms) -> None:
    """Change the learning rate to VALUE, in optimizer and schedule."""
    submit(where, terms, _adjustment(target, {"lr": value}))


@click.command()
@click.argument("values", nargs=-1, required=True, metavar="NAME=NUMBER...", callback=key_values)
@target_option
@change_options
@click.pass_obj
def hyper(where: Where, values: dict[str, float], target: str, terms: Terms) -> None:
    """Change hyper-parameters, e.g. `weight_decay=0.01`."""
    submit(where, terms, _adjustment(target, values))


@click.group()
def breaker() -> None:
    """Circuit breakers: list, open, close."""


@breaker.command("list")
@output_option
@click.pass_obj
def breaker_list(where: Where, output: str) -> None:
    """Every breaker (in JSON and YAML the whole answer of GetRun)."""

    def look() -> None:
        with where.client() as client:
            answer = client.run()
        rows = [(one.name, breaker_state(one.state), one.num_failures, one.detail) for one in answer.breakers]
        show(answer, output, lambda: columns(("BREAKER", "STATE", "FAILURES", "DETAIL"), rows, "no breakers"))

    run_reporting(look)


def _switch(name: str, state: Any, text: str) -> Callable[..., Any]:
    @breaker.command(name, help=text)
    @click.argument("breaker_name", metavar="BREAKER")
    @change_options
    @click.pass_obj
    def ask(where: Where, breaker_name: str, terms: Terms) -> None:
        asked = command_pb2.CommandCircuitBreaker(desired_state=state, rationale=terms.reason, name=breaker_name)
        submit(where, terms, command_pb2.AdaptationCommand(circuit_breaker=asked))

    return ask


breaker_open = _switch("open", vocabulary_pb2.CIRCUIT_BREAKER_STATE_OPEN, "Open BREAKER by hand.")
breaker_close = _switch("close", vocabulary_pb2.CIRCUIT_BREAKER_STATE_CLOSED, "Close BREAKER by hand.")


def _adjustment(target: str, values: dict[str, float]) -> command_pb2.AdaptationCommand:
    return command_pb2.AdaptationCommand(
        optimizer_adjustment=command_pb2.CommandOptimizerAdjustment(
            optimizer_id=target,
            hyperparameters=values,
            action=command_pb2.OPTIMIZER_ACTION_SET_HYPERPARAMETERS,
        )
    )
