"""How the demo tells what it measured: a table that says who wins, or one JSON object.

Pure, but for the printing. The shape of the JSON is fixed; tools read it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from esperd.cli.demo.results import ARMS, ArmSummary, GrownRun, RunResult, Spread, paired_differences, summarise
from esperd.cli.demo.tasks import DemoTask

LABELS = {
    "host": "host alone, equal steps",
    "host_equal_flops": "host alone, equal FLOPs",
    "random": "host + random growth",
    "tamiyo": "host + Tamiyo",
    "scratch": "final shape, scratch",
    "static": "well-chosen static",
}
"""What an arm is called; the last two are trained with Tamiyo's FLOPs, like `host_equal_flops`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Every run of the demo, by arm and in the order of the random seeds."""

    task: DemoTask
    runs: Mapping[str, Sequence[RunResult]]
    tamiyo: Sequence[GrownRun]

    @property
    def num_random_seeds(self) -> int:
        """Runs of every arm."""
        return len(self.tamiyo)


def to_json(measured: Measured) -> dict[str, Any]:
    """The demo's JSON object; a number that is not there is null."""
    last = measured.tamiyo[-1]
    return {
        "task": measured.task.name,
        "random_seeds": measured.num_random_seeds,
        "arms": {arm: _arm_object(summarise(measured.runs[arm])) for arm in ARMS},
        "paired": {
            name: {"delta": _number(difference.delta), "p": difference.p}
            for name, difference in paired_differences(measured.runs).items()
        },
        "seeds": {
            "fossilized": sum(len(run.fossils) for run in measured.tamiyo),
            "culled": sum(run.num_culled for run in measured.tamiyo),
        },
        "daemon_pid": last.daemon_pid,
        "policy_pid": last.policy_pid,
    }


def print_table(measured: Measured, console: Console) -> None:
    """The table of arms, the paired differences, and what was grown."""
    count = measured.num_random_seeds
    table = Table(title=measured.task.title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for column in ("params", "GFLOP", "steps", "val loss", "accuracy %"):
        table.add_column(column, justify="right", no_wrap=True)
    for arm in ARMS:
        summary = summarise(measured.runs[arm])
        table.add_row(LABELS[arm], *_cells(summary, count), style="bold" if arm == "tamiyo" else None)
    console.print(table)
    console.print(f"The static model has {measured.task.static_title}; it and the final shape had Tamiyo's FLOPs.")
    console.print(_honesty(count))
    for name, difference in paired_differences(measured.runs).items():
        p = "" if difference.p is None else f"   p = {difference.p:.2g}"
        other = LABELS[name.removeprefix("tamiyo_vs_")]
        console.print(f"  Tamiyo minus {other}: {difference.delta:+.3f} nats{p}", highlight=False)
    console.print(_grown(measured), highlight=False)


def print_next_commands(console: Console) -> None:
    """Three commands to try next."""
    console.print("\nNext:")
    for command in ("esperd init my-run", "esperd check my-run/esperd.toml", "esperd serve my-run/esperd.toml"):
        console.print(f"  {command}", highlight=False)


def _arm_object(summary: ArmSummary) -> dict[str, Any]:
    return {
        "val_loss": _spread_object(summary.val_loss),
        "val_accuracy": _spread_object(summary.val_accuracy),
        "params": summary.params,
        "train_flops": summary.train_flops,
        "steps": summary.steps,
    }


def _spread_object(spread: Spread) -> dict[str, float | None]:
    return {"mean": _number(spread.mean), "std": _number(spread.std)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cells(summary: ArmSummary, count: int) -> list[str]:
    loss, accuracy = summary.val_loss, summary.val_accuracy
    loss_spread = f" ± {loss.std:.3f}" if count > 1 else ""
    accuracy_spread = f" ± {100 * accuracy.std:.1f}" if count > 1 else ""
    return [
        f"{summary.params:,}",
        f"{summary.train_flops / 1e9:,.1f}",
        f"{summary.steps:,}",
        f"{loss.mean:.3f}{loss_spread}",
        f"{100 * accuracy.mean:.1f}{accuracy_spread}" if math.isfinite(accuracy.mean) else "-",
    ]


def _honesty(count: int) -> str:
    if count == 1:
        return "One random seed: no spread and no test; use --random-seeds for both."
    few = "; so few pairs show large effects only" if count < 5 else ""
    return f"Mean and standard deviation over {count} random seeds; differences are paired by random seed{few}."


def _grown(measured: Measured) -> str:
    kept = sum(len(run.fossils) for run in measured.tamiyo)
    culled = sum(run.num_culled for run in measured.tamiyo)
    names: dict[str, int] = {}
    for run in measured.tamiyo:
        for fossil in run.fossils:
            name = f"{fossil.blueprint_id} at {fossil.site}"
            names[name] = names.get(name, 0) + 1
    listed = ", ".join(f"{number} x {name}" for name, number in sorted(names.items()))
    return f"Tamiyo's seeds: {kept} fossilized ({listed or 'none'}), {culled} culled."
