"""How many commands a second the journal makes durable, alone and beside a busy interpreter.

Run it with `python -m tests.bench.journal [--json] [--quick] [--directory DIR]`; DIR decides which disk is measured.
Each row is a 300-byte command through `SqliteJournal.accept`, by so many callers at a time with so many commands in
each call.
"""

import asyncio
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from esperd.oona.records import CommandRecord
from esperd.oona.sqlite_journal import SqliteJournal
from tests.bench.report import AT_LEAST, Row, arguments, median_row, publish
from tests.unit.oona.samples import command

SHAPES = ((1, 1, None), (1, 64, 5_000.0), (8, 64, 20_000.0), (64, 8, 30_000.0))
"""Callers and commands a call, with the goal where there is one (bare SQLite: 14,000 rows/s at 64 a commit)."""
BUSY_SHAPES = ((1, 64, None), (64, 8, None))


def main() -> None:
    """Measure and print."""
    parser = arguments("commands a second that the journal makes durable")
    parser.add_argument("--directory", type=Path, default=None, help="where the journal lies; the temporary directory")
    options = parser.parse_args()
    num_rounds, round_s = (3, 0.5) if options.quick else (5, 2.0)
    rows: list[Row] = []
    for busy, shapes in ((False, SHAPES), (True, BUSY_SHAPES)):
        for batch_size, num_callers, goal in shapes:
            with tempfile.TemporaryDirectory(dir=options.directory) as directory, busy_thread(busy):
                path = Path(directory) / "journal"
                rates = asyncio.run(measure(path, batch_size, num_callers, num_rounds, round_s))
            name = f"{num_callers} callers, {batch_size} a call" + (", busy interpreter" if busy else "")
            rows.append(median_row(name, rates, "rows/s", goal, AT_LEAST))
    publish(rows, as_json=options.json)


async def measure(path: Path, batch_size: int, num_callers: int, num_rounds: int, round_s: float) -> list[float]:
    """Rows a second in each of several rounds on one journal."""
    journal = await SqliteJournal.open(path)
    numbers = itertools.count()
    template = command("template", bytes(300))

    def fresh() -> CommandRecord:
        name = f"{next(numbers):016x}"
        return replace(template, command_id=f"command-{name}", request_id=f"request-{name}")

    async def caller(end_s: float) -> int:
        num_rows = 0
        while time.perf_counter() < end_s:
            num_rows += len(await journal.accept([fresh() for _ in range(batch_size)]))
        return num_rows

    rates = []
    for _ in range(num_rounds):
        start_s = time.perf_counter()
        num_rows = sum(await asyncio.gather(*(caller(start_s + round_s) for _ in range(num_callers))))
        rates.append(num_rows / (time.perf_counter() - start_s))
    await journal.close()
    return rates


@contextmanager
def busy_thread(wanted: bool) -> Iterator[None]:
    """A thread that runs pure Python and never lets go of the interpreter by itself: the worst neighbour."""
    stop: list[bool] = []

    def spin() -> None:
        while not stop:
            pass

    thread = threading.Thread(target=spin)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        stop.append(True)
        if wanted:
            thread.join()


if __name__ == "__main__":
    main()
