"""`esperctl emergency`: raise, clear and list, on the lane that overtakes every queue."""

from typing import Any

import click

from esper.ctl import words
from esper.ctl.connection import Where
from esper.ctl.output import columns, output_option, show
from esper.failures import run_reporting
from esper.leyline.v1 import vocabulary_pb2

LEVELS = [name.removeprefix("EMERGENCY_LEVEL_") for name in vocabulary_pb2.EmergencyLevel.keys()[1:]]

_NOT_DURABLE = "\nthe journal cannot be written: a daemon that is killed now knows nothing of this at its next start"


@click.group()
def emergency() -> None:
    """Emergencies: raise, clear, list."""


@emergency.command("raise")
@click.argument("level", type=click.Choice(LEVELS, case_sensitive=False))
@click.option("--reason", required=True, help="Why, for the journal.")
@click.option("--request-id", default="", help="Your own id: sent again, it changes nothing.")
@output_option
@click.pass_obj
def raise_(where: Where, level: str, reason: str, request_id: str, output: str) -> None:
    """Raise the emergency level; HALT holds training until somebody clears and resumes it."""
    wanted: Any = vocabulary_pb2.EmergencyLevel.Value(f"EMERGENCY_LEVEL_{level}")

    def send() -> None:
        with where.client() as client:
            answer = client.raise_emergency(wanted, reason, origin="esperctl", request_id=request_id)
        raised = answer.emergency
        text = f"emergency {raised.emergency_id} {words.level(raised.level)} acknowledged at step {answer.global_step}"
        text += "" if answer.durable else _NOT_DURABLE
        show(answer, output, lambda: text)

    run_reporting(send)


@emergency.command("clear")
@click.argument("emergency_id", metavar="EMERGENCY")
@click.option("--reason", required=True, help="Why, for the journal.")
@click.option("--request-id", default="", help="Your own id: sent again, it changes nothing.")
@output_option
@click.pass_obj
def clear(where: Where, emergency_id: str, reason: str, request_id: str, output: str) -> None:
    """Clear an emergency."""

    def send() -> None:
        with where.client() as client:
            answer = client.clear_emergency(emergency_id, reason, request_id=request_id)
        text = f"cleared; the level is now {words.level(answer.level)}" + ("" if answer.durable else _NOT_DURABLE)
        show(answer, output, lambda: text)

    run_reporting(send)


@emergency.command("list")
@output_option
@click.pass_obj
def list_emergencies(where: Where, output: str) -> None:
    """Emergencies that stand."""

    def look() -> None:
        with where.client() as client:
            answer = client.emergencies()
        rows = [
            (one.emergency_id, words.level(one.level), one.raised_step, one.origin, one.reason)
            for one in answer.emergencies
        ]
        table = columns(("EMERGENCY", "LEVEL", "STEP", "BY", "REASON"), rows, "all clear")
        show(answer, output, lambda: table)

    run_reporting(look)
