"""`python -m tests.bench.control`: commands a second, latencies, the trainer's way up, telemetry fan-out.

The real server and journal on the main thread's loop, clients in processes of their own, on the same processors. The
bare unary rate of an empty grpc.aio server, measured in the same run, tells how fast the machine is at the moment: read
the ratio rows first. Takes about two minutes; `--only rates,bridge` picks.
"""

import asyncio
from collections.abc import Awaitable, Callable

from esperd.leyline.vocabulary import TrainerPhase
from tests.bench.control import bare_server, bridge, training
from tests.bench.control.driving import drive
from tests.bench.report import AT_LEAST, Row, arguments, median_row, publish
from tests.bench.stage import answering, new_bridge, on_uvloop, open_stage

UNARY_RATIO = 1.0
"""Signed over empty calls: what a server reaches that verifies, parses and answers, and does nothing else
(research/ceilings.md). So are the goals below, over signed unary calls of the same run; ours also accepts, hands over,
settles and shows each command."""
FORMS = (
    ("unary, 64 in flight", "flood-signed", None),
    ("stream, one a message", "stream-1", 2.0),
    ("stream, batches of 8", "stream-8", 12.0),
    ("stream, batches of 64", "stream-64", 32.0),
)
PARTS = ("rates", "latency", "training", "bridge", "fan-out")


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help=f"comma-separated: {', '.join(PARTS)}")
    options = parser.parse_args()
    parts = options.only.split(",") if options.only else PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    rounds, seconds = (2, 0.7) if options.quick else (5, 2.0)
    publish(on_uvloop(lambda: measure(parts, rounds, seconds)), as_json=options.json)


async def measure(parts: tuple[str, ...] | list[str], rounds: int, seconds: float) -> list[Row]:
    """Every part that was asked for, one after the other."""
    work: dict[str, Callable[[], Awaitable[list[Row]]]] = {
        "rates": lambda: rates(rounds, seconds),
        "latency": lambda: latency(rounds, seconds),
        "training": lambda: training.rows(rounds, seconds),
        "bridge": lambda: asyncio.to_thread(bridge.rows, rounds),
        "fan-out": lambda: bridge.fan_out(rounds, seconds),
    }
    return [row for part in PARTS if part in parts for row in await work[part]()]


async def rates(rounds: int, seconds: float) -> list[Row]:
    """Signed commands a second in each form, with the journal on disk and in memory, and their ratios."""
    async with bare_server.serving() as (address, key_file):
        bare = [tally.per_s for tally in await drive(address, key_file, "bare-unary", rounds, seconds)]
    rows = [median_row("bare grpc.aio unary, 64 in flight", bare, "1/s")]
    for durable, where in ((True, "journal on disk"), (False, "no journal")):
        found = await _commands_per_s(rounds, seconds, durable=durable)
        unary = found["flood-signed"]
        rows += [median_row(f"{name}, {where}", found[kind], "1/s") for name, kind, _ in FORMS]
        over_bare = [mine / base for mine, base in zip(unary, bare, strict=True)]
        rows.append(
            median_row(f"unary over bare, {where}", over_bare, "ratio", None if durable else UNARY_RATIO, AT_LEAST)
        )
        for name, kind, goal in FORMS[1:]:
            over_unary = [mine / one for mine, one in zip(found[kind], unary, strict=True)]
            rows.append(
                median_row(f"{name} over unary, {where}", over_unary, "ratio", None if durable else goal, AT_LEAST)
            )
    return rows


async def latency(rounds: int, seconds: float) -> list[Row]:
    """One call after the other, nothing else going on."""
    rows: list[Row] = []
    bridge_ = new_bridge(TrainerPhase.PAUSED)
    with answering(bridge_):
        async with open_stage(bridge_) as stage:
            for kind, name in (("one-read", "read"), ("one-signed", "signed command")):
                tallies = await drive(stage.address, stage.key_file, kind, rounds, seconds)
                rows.append(median_row(f"{name} alone, p50", [tally.p50_ms for tally in tallies], "ms"))
                rows.append(median_row(f"{name} alone, p99", [tally.p99_ms for tally in tallies], "ms"))
    return rows


async def _commands_per_s(rounds: int, seconds: float, *, durable: bool) -> dict[str, list[float]]:
    bridge_ = new_bridge(TrainerPhase.PAUSED)
    found: dict[str, list[float]] = {}
    with answering(bridge_):
        async with open_stage(bridge_, durable=durable) as stage:
            for _, kind, _ in FORMS:
                tallies = await drive(stage.address, stage.key_file, kind, rounds, seconds)
                found[kind] = [tally.per_s for tally in tallies]
    return found


if __name__ == "__main__":
    main()
