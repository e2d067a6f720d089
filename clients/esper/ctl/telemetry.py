"""`esperctl telemetry`: numbers and events as they come, one line each."""

import json

import click

from esper import numbers
from esper.ctl.connection import Where
from esper.ctl.output import as_values, columns, number, output_option, show
from esper.failures import run_reporting
from esper.leyline.v1 import telemetry_service_pb2


@click.command()
@click.argument("metrics", nargs=-1, metavar="[METRIC]...")
@click.option("--list", "names_only", is_flag=True, help="Show every metric there is, then leave.")
@click.option(
    "--rate",
    type=numbers.FiniteRange(0, 100),
    default=2.0,
    show_default=True,
    metavar="PER_SECOND",
    help="Frames a second at most; each shows the newest sample of every metric.",
)
@click.option(
    "--events",
    type=click.Choice(["info", "warning", "error", "critical", "none"]),
    default="info",
    show_default=True,
    help="Least serious event.",
)
@output_option
@click.pass_obj
def telemetry(where: Where, metrics: tuple[str, ...], names_only: bool, rate: float, events: str, output: str) -> None:
    """Follow METRICs: names, or prefixes that end in `.*`; all of them if none is named. JSON is one frame per line."""
    run_reporting(_names if names_only else _follow, where, metrics, rate, events, output)


def _names(where: Where, _metrics: tuple[str, ...], _rate: float, _events: str, output: str) -> None:
    with where.client() as client:
        answer = client.metrics()
    rows = [(metric.name, metric.unit, metric.description) for metric in answer.metrics]
    show(answer, output, lambda: columns(("METRIC", "UNIT", "MEANING"), rows, "no metrics"))


def _follow(where: Where, metrics: tuple[str, ...], rate: float, events: str, output: str) -> None:
    with where.client() as client:
        for response in client.stream_telemetry(
            metrics=metrics, max_frames_per_s=rate, latest_only=True, min_event_level=events
        ):
            if output == "json":
                click.echo(json.dumps(as_values(response)))
            elif output == "yaml":
                import yaml

                click.echo("---\n" + yaml.safe_dump(as_values(response), sort_keys=False), nl=False)
            else:
                _print(response)


def _print(response: telemetry_service_pb2.StreamTelemetryResponse) -> None:
    frame = response.frame
    where = _place(frame.timeline)
    for series in frame.series:
        if series.values:
            slot = f" slot {series.slot}" if series.slot else ""
            click.echo(f"{where}step {series.global_steps[-1]}  {series.name}{slot}  {number(series.values[-1])}")
    for event in frame.events:
        told = f"step {event.global_step}  {event.level.upper()}  {event.event_id}: {event.description}"
        click.echo(_place(event.timeline) + told)
    lost = frame.num_ring_dropped + response.num_frames_dropped
    if lost:
        click.echo(f"lost: {frame.num_ring_dropped} samples, {response.num_frames_dropped} frames", err=True)


def _place(timeline: int) -> str:
    """The timeline, once a rollback has opened a second one."""
    return f"timeline {timeline}  " if timeline > 1 else ""
