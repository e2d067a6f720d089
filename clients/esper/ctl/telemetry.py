"""`esperctl telemetry`: numbers and events as they come, one line each, or what has come in the last minutes."""

from dataclasses import dataclass

import click

from esper import numbers
from esper.ctl.connection import Where
from esper.ctl.output import columns, echo_message, number, output_option, show
from esper.failures import run_reporting
from esper.leyline.v1 import telemetry_service_pb2
from esper.text import plain


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
@click.option("--query", is_flag=True, help="Show what the daemon has kept of the last minutes, then leave.")
@click.option("--slot", type=click.IntRange(0), help="Of --query: only this slot; 0 is what belongs to none.")
@click.option("--since", type=click.IntRange(0), metavar="STEP", help="Of --query: from this step on.")
@click.option("--until", type=click.IntRange(1), metavar="STEP", help="Of --query: up to this step.")
@click.option("--buckets", type=click.IntRange(1, 1000), help="Of --query: rows of each series at most.  [default: 20]")
@output_option
@click.pass_obj
def telemetry(
    where: Where,
    metrics: tuple[str, ...],
    names_only: bool,
    rate: float,
    events: str,
    query: bool,
    slot: int | None,
    since: int | None,
    until: int | None,
    buckets: int | None,
    output: str,
) -> None:
    """Follow METRICs: names, or prefixes that end in `.*`; all of them if none is named. JSON is one frame per line.

    With --query each row holds the least, the mean and the greatest sample of equally many steps.
    """
    wanted = _Wanted(metrics, slot, since or 0, until or 0, buckets or 20)
    if query:
        run_reporting(_query, where, wanted, output)
    elif {slot, since, until, buckets} != {None}:
        raise click.UsageError("--slot, --since, --until and --buckets belong to --query")
    elif names_only:
        run_reporting(_names, where, output)
    else:
        run_reporting(_follow, where, metrics, rate, events, output)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What --query looks up."""

    metrics: tuple[str, ...]
    slot: int | None
    first_step: int
    last_step: int
    num_buckets: int


def _query(where: Where, wanted: _Wanted, output: str) -> None:
    with where.client() as client:
        names = wanted.metrics or tuple(metric.name for metric in client.metrics().metrics)
        answer = client.query_telemetry(
            names,
            slot=wanted.slot,
            first_step=wanted.first_step,
            last_step=wanted.last_step,
            max_buckets=wanted.num_buckets,
        )
    show(answer, output, lambda: _buckets(answer))


def _buckets(answer: telemetry_service_pb2.QueryTelemetryResponse) -> str:
    rows = [
        (
            series.name,
            series.slot or "",
            series.timeline or "?",
            str(bucket.first_step)
            if bucket.first_step == bucket.last_step
            else f"{bucket.first_step}-{bucket.last_step}",
            bucket.num_samples + bucket.num_not_finite,
            *((bucket.minimum, bucket.mean, bucket.maximum) if bucket.num_samples else ("-",) * 3),
            f"{bucket.num_not_finite} not finite" if bucket.num_not_finite else "",
        )
        for series in answer.series
        for bucket in series.buckets
    ]
    lost = f"\nlost before they could be kept: {answer.num_dropped} samples" if answer.num_dropped else ""
    header = ("METRIC", "SLOT", "TIMELINE", "STEPS", "SAMPLES", "LEAST", "MEAN", "GREATEST", "")
    return columns(header, rows, "nothing is kept of these") + lost


def _names(where: Where, output: str) -> None:
    with where.client() as client:
        answer = client.metrics()
    rows = [(metric.name, metric.unit, metric.description) for metric in answer.metrics]
    show(answer, output, lambda: columns(("METRIC", "UNIT", "MEANING"), rows, "no metrics"))


def _follow(where: Where, metrics: tuple[str, ...], rate: float, events: str, output: str) -> None:
    with where.client() as client:
        for response in client.stream_telemetry(
            metrics=metrics, max_frames_per_s=rate, latest_only=True, min_event_level=events
        ):
            if output == "table":
                _print(response)
            else:
                echo_message(response, output)


def _print(response: telemetry_service_pb2.StreamTelemetryResponse) -> None:
    frame = response.frame
    where = _place(frame.timeline)
    for series in frame.series:
        if series.values:
            slot = f" slot {series.slot}" if series.slot else ""
            click.echo(f"{where}step {series.global_steps[-1]}  {series.name}{slot}  {number(series.values[-1])}")
    for event in frame.events:
        told = f"step {event.global_step}  {event.level.upper()}  {event.event_id}: {event.description}"
        click.echo(plain(_place(event.timeline) + told))
    lost = frame.num_ring_dropped + response.num_frames_dropped
    if lost:
        click.echo(f"lost: {frame.num_ring_dropped} samples, {response.num_frames_dropped} frames", err=True)


def _place(timeline: int) -> str:
    """The timeline, once a rollback has opened a second one."""
    return f"timeline {timeline}  " if timeline > 1 else ""
