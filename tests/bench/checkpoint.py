"""For how long a checkpoint stops training, how soon it is durable, and how fast a state comes back from memory.

Run it with `python -m tests.bench.checkpoint [--json] [--quick] [--directory DIR]`; DIR decides which disk is measured.
A model of 1, 10 and 100 million float32 parameters (100 needs 8 GB of memory and 4 GB of disk), trained with AdamW, is
kept by esperd, by `torch.save` (synced to disk) and by `torch.distributed.checkpoint.async_save` (with its staging
buffers kept from one save to the next), in turns, so that all three meet the same machine. The first round warms up.
"""

import math
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from esperd.leyline.private_files import sync_directory
from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.retention import Retention
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria import optimizer_state
from esperd.tolaria.checkpoint_writer import CheckpointWriter, Result, Written
from esperd.tolaria.state_tree import BufferPool, capture, rebuild
from esperd.weatherlight.serve import SWITCH_INTERVAL_S
from tests.bench.report import AT_LEAST, Row, arguments, median_row, publish

WIDTHS = {1: 256, 10: 512, 100: 1024}
"""Millions of parameters, and the width of the square layers that they are made of."""
PAUSE_GOAL_MS = {10: 20.0}
EMERGENCY_GOAL_MS = {10: 100.0}
ROLLBACK_GOAL_MS = {10: 50.0}
_RUN = "bench"


def main() -> None:
    """Measure and print."""
    parser = arguments("pause, durability and rollback of checkpoints")
    parser.add_argument("--directory", type=Path, default=None, help="where they are written; the temporary directory")
    options = parser.parse_args()
    torch.set_num_threads(1)  # two threads that share a core with others wait for each other, in all three ways
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is: this is one process
    sizes, num_rounds, rate_s = ((1, 10), 3, 2.0) if options.quick else ((1, 10, 100), 7, 10.0)
    rows: list[Row] = []
    for millions in sizes:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            rows += measure(millions, Path(directory), num_rounds)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        rates = rate(Path(directory), rate_s)
    rows.append(median_row("1M: checkpoints a second", rates, "1/s", None, AT_LEAST))
    publish(rows, as_json=options.json)


def measure(millions: int, directory: Path, num_rounds: int) -> list[Row]:
    """Every way of keeping one model, in turns."""
    trained = Trained(millions)
    figures: dict[str, list[float]] = {}
    with (
        esperd_keeper(trained, directory / "esperd") as esperd,
        async_saver(trained, directory / "async") as async_save,
    ):
        ways: dict[str, Callable[[], dict[str, float]]] = {
            "esperd": esperd,
            "torch.save": lambda: save_with_torch(trained, directory / "torch.pt"),
            "async_save": async_save,
        }
        for number in range(num_rounds + 1):
            for way, keep in ways.items():
                for quantity, value_ms in keep().items():
                    if number:
                        figures.setdefault(f"{quantity}, {way}", []).append(value_ms)
    return rows_of(millions, figures)


def rows_of(millions: int, figures: dict[str, list[float]]) -> list[Row]:
    """Medians, then the ratios to the other two, round by round."""
    goals = {
        "pause, esperd": PAUSE_GOAL_MS.get(millions),
        "until durable, esperd": EMERGENCY_GOAL_MS.get(millions),
        "rollback from memory, esperd": ROLLBACK_GOAL_MS.get(millions),
    }
    prefix = f"{millions}M: "
    rows = [median_row(prefix + name, values, "ms", goals.get(name)) for name, values in figures.items()]
    for quantity in ("pause", "until durable"):
        ours = figures[f"{quantity}, esperd"]
        for other in ("torch.save", "async_save"):
            ratios = [theirs / own for theirs, own in zip(figures[f"{quantity}, {other}"], ours, strict=True)]
            rows.append(median_row(f"{prefix}{quantity}, {other} / esperd", ratios, "x"))
    return rows


class Trained:
    """A model with the state that AdamW has after a step."""

    def __init__(self, millions: int) -> None:
        width = WIDTHS[millions]
        num_layers = math.ceil(millions * 1_000_000 / (width * width + width))
        self.model = nn.Sequential(*(nn.Linear(width, width) for _ in range(num_layers)))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), foreach=True)
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        parameters = list(self.model.parameters())
        self._names = {id(p): ("host", 0, place) for place, p in enumerate(parameters)}
        self._by_name = {self._names[id(p)]: p for p in parameters}
        self.num_parameters = sum(parameter.numel() for parameter in parameters)

    def tree(self) -> dict[str, Any]:
        """What the trainer keeps of a host: parameters, optimizer, generators."""
        return {
            "host": {name: parameter.detach() for name, parameter in self.model.named_parameters()},
            "optimizers": optimizer_state.save(self.optimizer, self._names),
            "trainer": {"python": random.getstate(), "torch": torch.get_rng_state()},
        }

    def state_dicts(self) -> dict[str, Any]:
        """The same as a user of torch would save it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "python": random.getstate(),
            "torch": torch.get_rng_state(),
        }

    def restore(self, tree: dict[str, Any]) -> None:
        """Copy a state back into the live tensors, as a rollback does."""
        names, live = zip(*self.model.named_parameters(), strict=True)
        with torch.no_grad():
            torch._foreach_copy_([parameter.detach() for parameter in live], [tree["host"][name] for name in names])
        optimizer_state.load(self.optimizer, None, tree["optimizers"], self._by_name)
        random.setstate(tree["trainer"]["python"])
        torch.set_rng_state(tree["trainer"]["torch"])

    def manifest(self, number: int) -> Manifest:
        """For the checkpoint of this number."""
        return Manifest(
            checkpoint_id=f"t001-s{number:09d}",
            kind=CheckpointKind.SCHEDULED,
            run_id=_RUN,
            timeline=1,
            global_step=number,
            epoch=0,
            sequence=0,
            revision=0,
            journal_revision=0,
            written_unix_s=0.0,
            esperd_version="",
            torch_version="",
            task="",
            note="",
            config={},
            num_parameters=self.num_parameters,
            pause_ms=0.0,
        )


@contextmanager
def esperd_keeper(trained: Trained, directory: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """Keeps it as the trainer does: a copy in memory, files by the writer thread; then goes back to the copy."""
    results: SimpleQueue[Result] = SimpleQueue()
    store = CheckpointStore(directory)
    writer = CheckpointWriter(store, clock=time.perf_counter, on_done=results.put)
    pool = BufferPool(torch.device("cpu"))
    numbers = iter(range(1_000_000))

    def keep() -> dict[str, float]:
        number = next(numbers)
        began_s = time.perf_counter()
        captured = capture(trained.tree(), pool)
        writer.submit(captured, trained.manifest(number))
        pause_ms = since_ms(began_s)
        written = results.get()
        durable_ms = since_ms(began_s)
        assert isinstance(written, Written)
        assert written.error is None
        began_s = time.perf_counter()
        trained.restore(rebuild(captured))
        rollback_ms = since_ms(began_s)
        captured.release()
        store.remove(written.manifest.checkpoint_id)
        return {"pause": pause_ms, "until durable": durable_ms, "rollback from memory": rollback_ms}

    yield keep
    writer.close()
    store.release()


def save_with_torch(trained: Trained, path: Path) -> dict[str, float]:
    """`torch.save`, synced and renamed, on the training thread."""
    began_s = time.perf_counter()
    with path.with_suffix(".tmp").open("wb") as file:
        torch.save(trained.state_dicts(), file)
        file.flush()
        os.fsync(file.fileno())
    path.with_suffix(".tmp").rename(path)
    sync_directory(path.parent)
    durable_ms = since_ms(began_s)
    path.unlink()
    return {"pause": durable_ms, "until durable": durable_ms}


@contextmanager
def async_saver(trained: Trained, directory: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """`torch.distributed.checkpoint.async_save` in a thread; its writer syncs its files by default."""
    stager = DefaultStager(
        StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
        )
    )

    def keep() -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix=directory.name, dir=directory.parent) as target:
            began_s = time.perf_counter()
            writer = dcp.FileSystemWriter(target)
            future = dcp.async_save(trained.state_dicts(), storage_writer=writer, async_stager=stager, no_dist=True)
            pause_ms = since_ms(began_s)
            future.result()
            return {"pause": pause_ms, "until durable": since_ms(began_s)}

    yield keep
    stager.close()


def rate(directory: Path, duration_s: float) -> list[float]:
    """Checkpoints of 1 M parameters a second, one after another, old ones removed as they are in a run."""
    trained = Trained(1)
    results: SimpleQueue[Result] = SimpleQueue()
    store = CheckpointStore(directory)
    writer = CheckpointWriter(store, clock=time.perf_counter, on_done=results.put)
    pool = BufferPool(torch.device("cpu"))
    rates, number = [], 0
    for _ in range(4):
        began_s, num_written = time.perf_counter(), 0
        while time.perf_counter() - began_s < duration_s / 4:
            captured = capture(trained.tree(), pool)
            writer.submit(captured, trained.manifest(number))
            writer.prune(Retention(2))
            captured.release()
            num_written += sum(isinstance(results.get(), Written) for _ in range(2))
            number += 1
        rates.append(num_written / (time.perf_counter() - began_s))
    writer.close()
    store.release()
    return rates


def since_ms(began_s: float) -> float:
    """Milliseconds since then."""
    return (time.perf_counter() - began_s) * 1e3


if __name__ == "__main__":
    main()
