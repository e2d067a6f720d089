"""The demo from beginning to end: files, jobs, table.

Main thread, with an event loop of its own. Every number in the table is read from a run that has just been made.
"""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from esperd.cli.demo.compiled_report import compiled_json, print_compiled, print_next_kernel_commands
from esperd.cli.demo.compiled_run import CompiledRun, run_compiled
from esperd.cli.demo.configuration import DemoFiles, make_demo_files, make_run_files
from esperd.cli.demo.grown_run import run_grown
from esperd.cli.demo.live import LiveLine
from esperd.cli.demo.report import Measured, print_next_commands, print_table, to_json
from esperd.cli.demo.results import ARMS, GrownRun, RunResult
from esperd.cli.demo.schedule import Schedule
from esperd.cli.demo.tasks import TASKS, DemoTask, Option
from esperd.cli.demo.worker_process import WorkerProcess

ResultT = TypeVar("ResultT")
TAMIYO_FIRST, RANDOM_NEXT, LONG_ARMS, SHORT_ARMS = range(4)
"""Priorities: what others wait for first, then what takes long, so that no processor is idle at the end."""


def run_demo(task_name: str, num_random_seeds: int, num_steps: int | None, *, as_json: bool, keep: bool) -> int:
    """Run the demo and print what it measured. Raises EsperdError RUN_FAILED when one of its processes breaks."""
    task = TASKS[task_name]

    async def measure(root: Path, console: Console) -> Measured:
        return await _measure(task, num_random_seeds, num_steps or task.num_steps, root, console)

    def tell(measured: Measured, console: Console) -> None:
        _tell(measured, console, as_json=as_json)

    return _in_a_folder(measure, tell, as_json=as_json, keep=keep)


def _in_a_folder(
    measure: Callable[[Path, Console], Coroutine[Any, Any, ResultT]],
    tell: Callable[[ResultT, Console], None],
    *,
    as_json: bool,
    keep: bool,
) -> int:
    """Measure in a folder of the demo's own, tell, and leave nothing behind unless it is to be kept."""
    console = Console(stderr=as_json)
    # Unix socket paths are limited to about 100 bytes, and the system's temporary folder may have a long name.
    root = Path(tempfile.mkdtemp(prefix="esperd-demo-", dir="/tmp"))
    try:
        result = asyncio.run(measure(root, console))
    except asyncio.CancelledError:
        shutil.rmtree(root)
        raise click.Abort from None
    except BaseException as error:
        _leave(root, keep=not isinstance(error, KeyboardInterrupt), console=console)
        raise
    tell(result, console)
    _leave(root, keep=keep, console=console)
    return 0


def run_kernel_demo(num_steps: int | None, *, as_json: bool, keep: bool) -> int:
    """Run the demo of kernels and print what there was to see. Raises EsperdError RUN_FAILED, as `run_demo`."""
    task = TASKS["bytes"]

    async def measure(root: Path, console: Console) -> CompiledRun:
        _end_orderly_on_signals()
        files = make_demo_files(root, time.time())
        name = "kernels"
        run_files = make_run_files(files, name, task, num_steps or task.num_steps, 0)
        num_jobs = max(1, len(os.sched_getaffinity(0)) - 1)
        with LiveLine(console, 1) as line:
            arguments = policy_arguments(task, 0)
            return await run_compiled(name, files, run_files, arguments, num_jobs, partial(line.show, name))

    def tell(run: CompiledRun, console: Console) -> None:
        if as_json:
            click.echo(json.dumps(compiled_json(task, run)))
            return
        print_compiled(task, run, console)
        print_next_kernel_commands(console)

    return _in_a_folder(measure, tell, as_json=as_json, keep=keep)


def _tell(measured: Measured, console: Console, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(to_json(measured)))
        return
    print_table(measured, console)
    print_next_commands(console)


def _leave(root: Path, *, keep: bool, console: Console) -> None:
    if keep:
        console.print(f"The runs' files are in {root}", highlight=False)
    else:
        shutil.rmtree(root)


async def _measure(task: DemoTask, num_random_seeds: int, num_steps: int, root: Path, console: Console) -> Measured:
    _end_orderly_on_signals()
    with LiveLine(console, len(ARMS) * num_random_seeds) as line:
        num_processors = len(os.sched_getaffinity(0))
        schedule = Schedule(num_processors, root, line.set_progress)
        plan = _Plan(task, num_steps, make_demo_files(root, time.time()), schedule, line)
        for random_seed in range(num_random_seeds):
            plan.ask(random_seed)
        await schedule.run()
    seeds = range(num_random_seeds)
    return Measured(
        task,
        {arm: [results[seed] for seed in seeds] for arm, results in plan.results.items()},
        [plan.tamiyo[seed] for seed in seeds],
    )


def policy_arguments(task: DemoTask, random_seed: int) -> list[str]:
    """How Tamiyo is started in the demo."""
    common = _common_arguments(task, random_seed)
    return ["--policy", "heuristic", "--budget", task.budget, "--candidates", "2", *common]


def _common_arguments(task: DemoTask, random_seed: int) -> list[str]:
    return ["--random-seed", str(random_seed), "--packet-every", str(task.packet_every_steps)]


def _end_orderly_on_signals() -> None:
    """A Ctrl-C cancels the demo already; being told to end, or losing the terminal, shall do the same."""
    demo = asyncio.current_task()
    assert demo is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, demo.cancel)


@dataclass(slots=True)
class _Plan:
    """Asks for the jobs of each random seed and gathers their results."""

    task: DemoTask
    num_steps: int
    files: DemoFiles
    schedule: Schedule
    line: LiveLine
    results: dict[str, dict[int, RunResult]] = field(default_factory=dict)
    tamiyo: dict[int, GrownRun] = field(default_factory=dict)

    def ask(self, random_seed: int) -> None:
        """The jobs that need nothing else first."""

        async def tamiyo(_: WorkerProcess) -> None:
            arguments = policy_arguments(self.task, random_seed)
            run = self.tamiyo[random_seed] = await self._grow("tamiyo", random_seed, arguments)
            self._ask_at_equal_flops(random_seed, run)

        async def random(_: WorkerProcess) -> None:
            await self._grow("random", random_seed, ["--policy", "random", *_common_arguments(self.task, random_seed)])

        self.schedule.ask(TAMIYO_FIRST, tamiyo)
        self.schedule.ask(RANDOM_NEXT, random)
        self._ask_arm("host", SHORT_ARMS, random_seed, num_steps=self.num_steps)

    def _ask_at_equal_flops(self, random_seed: int, run: GrownRun) -> None:
        flops = run.result.train_flops
        insertions = [[fossil.site, fossil.blueprint_id, dict(fossil.parameters)] for fossil in run.fossils]
        self._ask_arm("host_equal_flops", LONG_ARMS, random_seed, flops=flops)
        self._ask_arm("scratch", SHORT_ARMS, random_seed, flops=flops, insertions=insertions)
        self._ask_arm("static", SHORT_ARMS, random_seed, flops=flops, options=self.task.static_options)

    def _ask_arm(
        self,
        arm: str,
        priority: int,
        random_seed: int,
        *,
        options: Any = (),
        insertions: list[list[Any]] | None = None,
        **budget: float,
    ) -> None:
        merged: dict[str, Option] = {**self.task.options, **dict(options)}
        job = {
            "spec": self.task.spec,
            "options": merged,
            "random_seed": random_seed,
            "insertions": insertions or [],
            **budget,
        }

        async def train(worker: WorkerProcess) -> None:
            self._keep(arm, random_seed, await worker.train(job))

        self.schedule.ask(priority, train)

    async def _grow(self, arm: str, random_seed: int, arguments: list[str]) -> GrownRun:
        name = f"{arm}-{random_seed}"
        files = make_run_files(self.files, name, self.task, self.num_steps, random_seed)
        try:
            run = await run_grown(name, self.files, files, arguments, partial(self.line.show, name))
        finally:
            self.line.leave(name)
        self._keep(arm, random_seed, run.result)
        return run

    def _keep(self, arm: str, random_seed: int, result: RunResult) -> None:
        self.results.setdefault(arm, {})[random_seed] = result
