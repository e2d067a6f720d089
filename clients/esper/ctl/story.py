"""`esperctl log`: what happened to the seeds, in order, and who asked for it."""

import json

import click

from esper.ctl import words
from esper.ctl.connection import Where
from esper.ctl.output import as_values, output_option
from esper.ctl.tables import gate_lines
from esper.failures import run_reporting
from esper.leyline.v1 import command_pb2, state_service_pb2

Told = tuple[state_service_pb2.GetSeedResponse, state_service_pb2.SeedTransition]


@click.command()
@click.option("--seed", "seed_id", default="", metavar="SEED", help="Only this seed.")
@click.option("--why", is_flag=True, help="With the evidence of each gate, and the reason of each command.")
@output_option
@click.pass_obj
def log(where: Where, seed_id: str, why: bool, output: str) -> None:
    """What happened to the seeds, oldest first; JSON is one object per line."""

    def look() -> None:
        with where.client() as client:
            ids = [seed_id] if seed_id else [seed.seed_id for seed in client.seeds().seeds]
            stories = [client.seed(one) for one in ids]
            told = sorted(
                ((story, step) for story in stories for step in story.transitions), key=lambda pair: _order(pair[1])
            )
            asked = {cause: client.command(cause) for cause in _commands(told)} if why else {}
        if output == "table":
            _print_lines(told, asked, why)
        else:
            _print_values(told, output)

    run_reporting(look)


def _order(transition: state_service_pb2.SeedTransition) -> tuple[int, int]:
    return transition.global_step, transition.time.ToNanoseconds()


def _commands(told: list[Told]) -> list[str]:
    """Causes that are commands: the daemon's ids hold a dash, its rules are words."""
    return sorted({step.cause for _, step in told if "-" in step.cause and ":" not in step.cause})


def _print_lines(told: list[Told], asked: dict[str, command_pb2.Command], why: bool) -> None:
    if not told:
        click.echo("nothing has grown yet")
    for story, step in told:
        seed = story.seed
        source, target = words.stage(step.source), words.stage(step.target)
        click.echo(
            f"step {step.global_step}  seed {seed.seed_id} ({seed.blueprint_id} at {seed.site})  "
            f"{source} -> {target}  {step.cause}"
        )
        command = asked.get(step.cause)
        if command is not None:
            click.echo(f"  asked by {command.principal}: {command.request.reason or 'no reason given'}")
        if why and step.gate.gate:
            click.echo("\n".join(gate_lines(step.gate)))


def _print_values(told: list[Told], output: str) -> None:
    rows = [{"seedId": story.seed.seed_id, **as_values(step)} for story, step in told]
    if output == "json":
        for row in rows:
            click.echo(json.dumps(row))
    else:
        import yaml

        click.echo(yaml.safe_dump(rows, sort_keys=False, allow_unicode=True), nl=False)
