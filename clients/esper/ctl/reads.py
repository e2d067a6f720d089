"""Commands that look: status, seeds, sites, optimizers, info."""

import time
from typing import Any

import click

from esper.ctl import tables
from esper.ctl.connection import Where
from esper.ctl.output import output_option, show
from esper.failures import run_reporting
from esper.leyline.v1 import vocabulary_pb2

STAGES = [name.removeprefix("SEED_STAGE_") for name in vocabulary_pb2.SeedLifecycleStage.keys()[1:]]


@click.command()
@output_option
@click.pass_obj
def status(where: Where, output: str) -> None:
    """The run at a glance."""

    def look() -> None:
        with where.client() as client:
            answer = client.run()
            newest = next(iter(client.checkpoints(page_size=1).checkpoints), None)
        show(answer, output, lambda: tables.status(answer, newest, time.time()))

    run_reporting(look)


@click.command()
@click.option("--stage", type=click.Choice(STAGES, case_sensitive=False), help="Only seeds in this stage.")
@output_option
@click.pass_obj
def seeds(where: Where, stage: str | None, output: str) -> None:
    """Every seed."""
    wanted: Any = vocabulary_pb2.SeedLifecycleStage.Value(f"SEED_STAGE_{stage}") if stage else 0

    def look() -> None:
        with where.client() as client:
            answer = client.seeds(stage=wanted)
        show(answer, output, lambda: tables.seeds(answer.seeds))

    run_reporting(look)


@click.command()
@output_option
@click.pass_obj
def sites(where: Where, output: str) -> None:
    """Where seeds may grow, what, and at which cost."""

    def look() -> None:
        with where.client() as client:
            answer = client.sites()
        show(answer, output, lambda: tables.sites(answer.sites))

    run_reporting(look)


@click.command()
@output_option
@click.pass_obj
def optimizers(where: Where, output: str) -> None:
    """Every optimizer group."""

    def look() -> None:
        with where.client() as client:
            answer = client.optimizers()
        show(answer, output, lambda: tables.optimizers(answer.groups))

    run_reporting(look)


@click.command()
@output_option
@click.pass_obj
def info(where: Where, output: str) -> None:
    """Who the daemon is, and its limits."""

    def look() -> None:
        with where.client() as client:
            answer = client.server_info()
        show(answer, output, lambda: tables.info(answer))

    run_reporting(look)
