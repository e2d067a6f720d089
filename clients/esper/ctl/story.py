"""`esperctl log`: what happened to the seeds, in order, and who asked for it."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from esper.ctl import biography, words
from esper.ctl.biography import Facts
from esper.ctl.connection import Where
from esper.ctl.output import as_values, output_option
from esper.ctl.tables import gate_lines
from esper.ctl.timelines import cause_in_words, is_command, seeds_in_words
from esper.failures import run_reporting
from esper.leyline.v1 import command_pb2, state_pb2, state_service_pb2
from esper.text import plain

if TYPE_CHECKING:
    from esper.client.sync import Client

Told = tuple[state_service_pb2.GetSeedResponse, state_service_pb2.SeedTransition]


@click.command()
@click.option("--seed", "seed_id", default="", metavar="SEED", help="Only this seed.")
@click.option("--why", is_flag=True, help="With evidence and reasons; of one seed, its whole story in sentences.")
@output_option
@click.pass_obj
def log(where: Where, seed_id: str, why: bool, output: str) -> None:
    """What happened to the seeds, oldest first, with the rollbacks; JSON is one object per line."""
    run_reporting(_tell_story if seed_id and why else _tell, where, seed_id, why, output)


def _tell(where: Where, seed_id: str, why: bool, output: str) -> None:
    with where.client() as client:
        ids = [seed_id] if seed_id else [seed.seed_id for seed in client.seeds(with_gone=True).seeds]
        stories = [client.seed(one) for one in ids]
        timelines = client.timelines().timelines
        told: list[Told] = [(story, step) for story in stories for step in story.transitions]
        asked = _commands(client, {step.cause for _, step in told} if why else set(), timelines)
    rows = [
        (step.time.ToNanoseconds(), _lines(story, step, asked, why, timelines), _row(story, step))
        for story, step in told
    ]
    rows += [
        (one.open_time.ToNanoseconds(), [_rollback_line(one, asked)], {"timelineOpened": as_values(one)})
        for one in timelines
        if one.parent
    ]
    rows.sort(key=lambda row: row[0])
    if output == "table":
        click.echo("\n".join(plain(line) for _, lines, _ in rows for line in lines) or "nothing has grown yet")
    else:
        _print_values([values for _, _, values in rows], output)


def _tell_story(where: Where, seed_id: str, _why: bool, output: str) -> None:
    with where.client() as client:
        facts = _facts(client, seed_id)
    happened = biography.events(facts)
    if output == "table":
        several = len(facts.timelines) > 1
        for event in happened:
            timeline = f" of timeline {event.timeline}" if several else ""
            click.echo(plain(f"{_date(event.time_ns)}, step {event.global_step}{timeline}: {event.text}"))
        click.echo(plain(biography.ending(facts)))
        return
    rows: list[dict[str, Any]] = [
        {"seedId": seed_id, "time": _date(event.time_ns), "globalStep": str(event.global_step),
         "timeline": event.timeline, "text": event.text}
        for event in happened
    ]  # fmt: skip
    _print_values([*rows, {"seedId": seed_id, "text": biography.ending(facts)}], output)


def _facts(client: "Client", seed_id: str) -> Facts:
    story = client.seed(seed_id)
    timelines = client.timelines().timelines
    began_ns = client.run().run.start_time.ToNanoseconds()
    commands: list[command_pb2.Command] = []
    token = ""
    while True:
        page = client.commands(page_size=500, page_token=token, seed_id=seed_id)
        # Seed numbers of earlier runs in this journal are other seeds.
        commands += [one for one in page.commands if one.accept_time.ToNanoseconds() >= began_ns]
        token = page.next_page_token
        if not token:
            break
    causes = _commands(client, biography.causes_of(story.transitions, timelines), timelines)
    return Facts(story, timelines, commands, causes)


def _commands(
    client: "Client", causes: set[str], timelines: Sequence[state_pb2.Timeline]
) -> dict[str, command_pb2.Command]:
    """The commands among the causes, those of rollbacks included."""
    wanted = causes | {one.cause for one in timelines}
    return {cause: client.command(cause) for cause in sorted(wanted) if is_command(cause)}


def _lines(
    story: state_service_pb2.GetSeedResponse,
    step: state_service_pb2.SeedTransition,
    asked: dict[str, command_pb2.Command],
    why: bool,
    timelines: Sequence[state_pb2.Timeline],
) -> list[str]:
    seed = story.seed
    where = f"timeline {step.timeline or 1}  " if len(timelines) > 1 else ""
    name = f"seed {seed.seed_id} ({seed.blueprint_id} at {seed.site})"
    change = f"{words.stage(step.source)} -> {words.stage(step.target)}"
    lines = [f"{where}step {step.global_step}  {name}  {change}  {step.cause}"]
    command = asked.get(step.cause) if why else None
    if command is not None:
        lines.append(f"  asked by {command.principal}: {command.request.reason or 'no reason given'}")
    if why and step.gate.gate:
        lines += gate_lines(step.gate)
    return lines


def _rollback_line(one: state_pb2.Timeline, asked: dict[str, command_pb2.Command]) -> str:
    seeds = seeds_in_words(one)
    return (
        f"timeline {one.timeline}  opened: back from step {one.left_step} of timeline {one.timeline - 1} to step "
        f"{one.fork_step} of timeline {one.parent}, {cause_in_words(one.cause, asked.get(one.cause))}"
        f"{f'; {seeds}' if seeds else ''}"
    )


def _row(story: state_service_pb2.GetSeedResponse, step: state_service_pb2.SeedTransition) -> dict[str, Any]:
    return {"seedId": story.seed.seed_id, **as_values(step)}


def _date(time_ns: int) -> str:
    import datetime

    time = datetime.datetime.fromtimestamp(time_ns / 1e9, datetime.UTC)
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _print_values(rows: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        for row in rows:
            click.echo(json.dumps(row))
    else:
        import yaml

        click.echo(yaml.safe_dump(rows, sort_keys=False, allow_unicode=True), nl=False)
