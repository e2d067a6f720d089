"""`python -m tests.bench.control`: commands a second, latencies, the trainer's way up, telemetry fan-out.

The real server and journal on the main thread's loop, clients in processes of their own, on the same processors. A bare
grpc.aio server takes its turns with ours in the same run and gets the same signed messages from the same client, so the
ratio rows say what verifying, checking and answering costs: read them first. Takes about four minutes;
`--only rates,bridge` picks.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from esperd.leyline.vocabulary import TrainerPhase
from tests.bench.control import bare_server, bridge, training
from tests.bench.control.driving import Target, drive, drive_in_turns
from tests.bench.report import AT_LEAST, Row, arguments, median_row, publish
from tests.bench.stage import answering, new_bridge, on_uvloop, open_stage

CHECKED_RATIO = 0.9
"""Calls that are verified and checked in full (`validate_only`), over the same ones to a server that looks at none."""
FORMS = (
    ("unary, 64 in flight", "flood-signed", None),
    ("stream, one a message", "stream-1", 2.0),
    ("stream, batches of 8", "stream-8", 12.0),
    ("stream, batches of 64", "stream-64", 32.0),
)
"""The goals are over unary commands of the same run."""
BUSY_P99_MS = 25.0
"""Beside a thread that never lets go of the interpreter of its own will (research/control-plane.md, test 12)."""
PARTS = ("rates", "latency", "busy", "connect", "training", "bridge", "fan-out")


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
        "busy": lambda: busy(rounds, seconds),
        "connect": lambda: connect(rounds, seconds),
        "training": lambda: training.rows(rounds, seconds),
        "bridge": lambda: asyncio.to_thread(bridge.rows, rounds),
        "fan-out": lambda: bridge.fan_out(rounds, seconds),
    }
    return [row for part in PARTS if part in parts for row in await work[part]()]


async def rates(rounds: int, seconds: float) -> list[Row]:
    """Signed commands a second in each form, with the journal on disk and in memory, and their ratios."""
    rows: list[Row] = []
    async with bare_server.serving() as bare:
        for durable, where in ((False, "no journal"), (True, "journal on disk")):
            found = await _per_s(bare, rounds, seconds, durable=durable)
            base, unary = found["bare"], found["flood-signed"]
            rows.append(median_row(f"bare grpc.aio unary, same messages, beside {where}", base, "1/s"))
            rows += [median_row(f"{name}, {where}", found[kind], "1/s") for name, kind, _ in FORMS]
            if not durable:
                checked = found["flood-checked"]
                rows.append(median_row("unary, verified and checked only", checked, "1/s"))
                ratio = _ratios(checked, base)
                rows.append(median_row("verified and checked, over bare", ratio, "ratio", CHECKED_RATIO, AT_LEAST))
            rows.append(median_row(f"unary commands over bare, {where}", _ratios(unary, base), "ratio"))
            for name, kind, goal in FORMS[1:]:
                ratio = _ratios(found[kind], unary)
                rows.append(
                    median_row(f"{name} over unary, {where}", ratio, "ratio", None if durable else goal, AT_LEAST)
                )
    return rows


async def latency(rounds: int, seconds: float) -> list[Row]:
    """One call after the other, nothing else going on."""
    return await _latencies("alone", rounds, seconds)


async def busy(rounds: int, seconds: float) -> list[Row]:
    """The same beside a thread of pure Python, which is worse than any trainer."""
    stop: list[bool] = []
    thread = threading.Thread(target=_be_busy, args=(stop,), name="busy")
    thread.start()
    try:
        return await _latencies("beside a busy thread", rounds, seconds, BUSY_P99_MS)
    finally:
        stop.append(True)
        thread.join()


async def connect(rounds: int, seconds: float) -> list[Row]:
    """A connection with its first read, over each transport."""
    rows: list[Row] = []
    async with open_stage(new_bridge(TrainerPhase.PAUSED), listen=("127.0.0.1:0",)) as stage:
        for name, address in zip(("Unix socket", "TCP"), stage.addresses, strict=True):
            tallies = await drive(address, stage.key_file, "connect", rounds, seconds)
            rows.append(median_row(f"connect and read, {name}, p50", [tally.p50_ms for tally in tallies], "ms"))
            rows.append(median_row(f"connect and read, {name}, p99", [tally.p99_ms for tally in tallies], "ms"))
    return rows


async def _latencies(name: str, rounds: int, seconds: float, goal_ms: float | None = None) -> list[Row]:
    rows: list[Row] = []
    bridge_ = new_bridge(TrainerPhase.PAUSED)
    with answering(bridge_):
        async with open_stage(bridge_) as stage:
            for kind, what in (("one-read", "read"), ("one-signed", "signed command"), ("emergencies", "emergency")):
                tallies = await drive(stage.address, stage.key_file, kind, rounds, max(seconds, 1.0))
                rows.append(median_row(f"{what} {name}, p50", [tally.p50_ms for tally in tallies], "ms"))
                rows.append(median_row(f"{what} {name}, p99", [tally.p99_ms for tally in tallies], "ms", goal_ms))
    return rows


async def _per_s(bare: tuple[str, Path], rounds: int, seconds: float, *, durable: bool) -> dict[str, list[float]]:
    bridge_ = new_bridge(TrainerPhase.PAUSED)
    with answering(bridge_):
        async with open_stage(bridge_, durable=durable) as stage:
            kinds = [kind for _, kind, _ in FORMS] + ([] if durable else ["flood-checked"])
            targets = {kind: Target(stage.address, stage.key_file, kind) for kind in kinds}
            targets["bare"] = Target(*bare, "flood-signed")
            found = await drive_in_turns(targets, rounds, seconds)
    return {name: [tally.per_s for tally in tallies] for name, tallies in found.items()}


def _ratios(mine: Sequence[float], base: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(mine, base, strict=True)]


def _be_busy(stop: list[bool]) -> None:
    number = 0
    while not stop:
        for _ in range(1000):
            number = (number * 31 + 7) % 1_000_003


if __name__ == "__main__":
    main()
