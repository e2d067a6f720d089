"""How every benchmark says what it measured: a table for people, or one JSON object with `--json`.

A row is a value with its spread (low and high of the rounds, or of a confidence interval), its unit, and the goal it
is held against, if there is one. Benchmarks never fail because a machine is busy: they print.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

AT_MOST = "at_most"
AT_LEAST = "at_least"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured quantity."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    goal: float | None = None
    sense: str = AT_MOST

    @property
    def verdict(self) -> str:
        """Whether the goal is met; empty without a goal."""
        if self.goal is None:
            return ""
        met = self.value <= self.goal if self.sense == AT_MOST else self.value >= self.goal
        return "met" if met else "MISSED"


def median_row(name: str, values: Sequence[float], unit: str, goal: float | None = None, sense: str = AT_MOST) -> Row:
    """The median of several rounds, with their extremes."""
    return Row(name, statistics.median(values), min(values), max(values), unit, goal, sense)


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the two flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a rough figure in under 40 seconds")
    return parser


def publish(rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the rows."""
    if as_json:
        print(json.dumps({row.name: _as_object(row) for row in rows}, indent=1))
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        goal = "" if row.goal is None else f"   goal {row.sense.replace('_', ' ')} {row.goal:g}: {row.verdict}"
        print(f"{row.name:<{width}}  {row.value:>12.4g} {row.unit:<6} [{row.low:.4g}, {row.high:.4g}]{goal}")


def _as_object(row: Row) -> dict[str, float | str | None]:
    return {
        "value": row.value,
        "low": row.low,
        "high": row.high,
        "unit": row.unit,
        "goal": row.goal,
        "sense": row.sense,
    }
