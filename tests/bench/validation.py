"""What it costs to read a command against the rules of the contract; `python -m tests.bench.validation`.

Each row is processor time: of one command that came alone, of one of 256 in a batch, of one that is refused, and of the
messages of a megabyte that would hold the loop longest if their entries were not counted first.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial

from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1.command_service_pb2 import CommandBatch

from esperd.control.batches import MAX_COMMANDS, read_batch, read_single
from esperd.control.errors import InvalidRequest
from tests.bench.report import AT_MOST, Row, arguments, median_row, publish

KINDS: Mapping[str, pb.AdaptationCommand] = {
    "pause": pb.AdaptationCommand(run_control={"action": 1}),
    "hyperparameters": pb.AdaptationCommand(
        optimizer_adjustment={"optimizer_id": "host", "hyperparameters": {"lr": 1e-3}}
    ),
    "germinate": pb.AdaptationCommand(
        reason="loss stalls",
        seed_operation={
            "operation": 1,
            "site": "block.1",
            "blueprint_id": "bottleneck",
            "parameters": {"width": 8.0},
            "alpha": {"curve": 2, "num_steps": 30, "target": 0.9},
            "auto_advance": True,
        },
    ),
}
HOSTILE: Mapping[str, CommandBatch] = {
    "empty_commands": CommandBatch(commands=[pb.AdaptationCommand()] * 500_000),
    "empty_verdicts": CommandBatch(commands=[pb.AdaptationCommand(risk=[pb.RiskVerdict()] * 300_000)]),
    "full_lists": CommandBatch(
        commands=[
            pb.AdaptationCommand(
                request_id="r",
                run_control={"action": 1},
                risk=[pb.RiskVerdict(rule="r" * 40, action="allow")] * 64,
            )
        ]
        * MAX_COMMANDS
    ),
}
MAX_HELD_MS = 100.0


def named(kind: pb.AdaptationCommand, request_id: str) -> pb.AdaptationCommand:
    """A command of this kind."""
    command = pb.AdaptationCommand(request_id=request_id)
    command.MergeFrom(kind)
    return command


def refuse(data: bytes) -> None:
    """Read what breaks a rule."""
    try:
        read_batch(data)
    except InvalidRequest:
        return


def rounds_us(work: Callable[[], object], num_rounds: int, num_calls: int) -> list[float]:
    """Microseconds of a call, one figure for each round."""
    work()
    found = []
    for _ in range(num_rounds):
        begun = time.process_time()
        for _ in range(num_calls):
            work()
        found.append((time.process_time() - begun) / num_calls * 1e6)
    return found


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    num_rounds = 5 if options.quick else 25
    rows: list[Row] = []
    for name, kind in KINDS.items():
        alone = named(kind, "r-1").SerializeToString()
        batch = CommandBatch(commands=[named(kind, f"r-{n}") for n in range(MAX_COMMANDS)]).SerializeToString()
        refused = CommandBatch(commands=[named(kind, "r" * 200)]).SerializeToString()
        in_batch = [us / MAX_COMMANDS for us in rounds_us(partial(read_batch, batch), num_rounds, 10)]
        rows.append(median_row(f"{name}.alone", rounds_us(partial(read_single, alone, b""), num_rounds, 2000), "us"))
        rows.append(median_row(f"{name}.in_batch", in_batch, "us"))
        rows.append(median_row(f"{name}.refused", rounds_us(partial(refuse, refused), num_rounds, 500), "us"))
    for name, hostile in HOSTILE.items():
        data = hostile.SerializeToString()
        held_ms = [us / 1e3 for us in rounds_us(partial(refuse, data), 3, 1)]
        rows.append(median_row(f"hostile.{name}", held_ms, "ms", MAX_HELD_MS, AT_MOST))
    publish(rows, as_json=options.json)


if __name__ == "__main__":
    main()
