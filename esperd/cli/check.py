"""`esperd check`: what a task is, where it may grow, and what that would cost, before anything is trained.

Main thread; loads torch. All the looking is Tolaria's, this prints it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from esperd.config.load import load_settings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import SiteView

if TYPE_CHECKING:
    from esperd.tolaria.check import CheckReport


def print_check(file: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    """Run one step of the task that `file` names and print what it showed.

    Raises:
        EsperdError: of the configuration, task, site and device entries.
    """
    settings = load_settings(file, overrides)
    try:
        from esperd.tolaria.check import inspect_task
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EsperdError("TORCH_MISSING") from error
    report = inspect_task(settings, file.absolute().parent)
    if as_json:
        click.echo(json.dumps(_as_object(report), indent=2))
        return
    console = Console()
    console.print(_facts_table(report))
    console.print(_sites_table(report) if report.sites else "No sites: [growth] sites is empty, so nothing can grow.")


def _as_object(report: "CheckReport") -> dict[str, Any]:
    document = asdict(report)
    for site in document["sites"]:
        for offer in site["offers"]:
            offer["tier"] = offer["tier"].name
    return document


def _facts_table(report: "CheckReport") -> Table:
    table = Table(title=f"{report.task} works", title_justify="left", show_header=False)
    rows = {
        "device": f"{report.device}, autocast {report.amp}",
        "inputs": ", ".join(report.input_shapes),
        "targets": ", ".join(report.target_shapes),
        "output": ", ".join(report.output_shapes),
        "parameters": f"{report.num_parameters:,}, {report.num_trained_parameters:,} of them trained",
        "optimizer": report.optimizer,
        "first step": f"loss {report.loss:.4f}, {report.step_ms:.1f} ms, {report.step_flops / 1e6:,.2f} MFLOP",
        "a rollback snapshot": _bytes(report.snapshot_bytes),
        **report.facts,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _sites_table(report: "CheckReport") -> Table:
    table = Table(title="Where seeds may grow, and what one costs (FLOPs and memory: a sample)", title_justify="left")
    for column in ("site", "activation", "blueprint"):
        table.add_column(column, no_wrap=True)
    for column in ("parameters", "FLOPs", "memory"):
        table.add_column(column, justify="right")
    for site in report.sites:
        _add_site(table, site)
    return table


def _add_site(table: Table, site: SiteView) -> None:
    shape = str(site.activation_shape)
    if not site.offers:
        table.add_row(site.site, shape, "none fits", "", "", "")
    for index, offer in enumerate(site.offers):
        cost = offer.cost
        table.add_row(
            site.site if index == 0 else "",
            shape if index == 0 else "",
            offer.blueprint_id,
            f"{cost.num_parameters:,}",
            f"{cost.forward_flops + cost.backward_flops:,}",
            _bytes(cost.activation_bytes),
        )


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
