"""How `esperd demo --kernels` tells what it saw: kernels, seeds, and what the daemon had to do with compiling.

Pure, but for the printing. The shape of the JSON is fixed; tools read it.
"""

import statistics
from typing import Any

from esper.leyline.v1.kernel_pb2 import KERNEL_STATE_WANTED, Kernel, KernelState
from esper.leyline.v1.state_pb2 import SeedState
from esper.leyline.v1.vocabulary_pb2 import SeedLifecycleStage
from rich import box
from rich.console import Console
from rich.table import Table

from esperd.cli.demo.compiled_run import CompiledRun
from esperd.cli.demo.tasks import DemoTask

SHORT_ID = 8
MIN_SAMPLES = 5
"""Of step times, before two medians are held against each other."""


def compiled_json(task: DemoTask, run: CompiledRun) -> dict[str, Any]:
    """The demo's JSON object."""
    return {
        "task": task.name,
        "steps": run.run.global_step,
        "val_loss": run.run.val_loss,
        "kernels": [_kernel_object(kernel) for kernel in run.kernels],
        "seeds": [_seed_object(seed) for seed in run.seeds],
        "swaps": [{"step": swap.step, "seed_id": swap.seed_id} for swap in run.swaps],
        "held_s": run.held_s,
        "step_ms": {"eager": _median(run.eager_ms), "compiled": _median(run.compiled_ms)},
        "compiler_modules_in_daemon": run.compiler_modules,
        "daemon_pid": run.daemon_pid,
        "compiler_pid": run.compiler_pid,
    }


def print_compiled(task: DemoTask, run: CompiledRun, console: Console) -> None:
    """The table of kernels, the seeds, and the daemon's part in it."""
    table = Table(title=task.title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("kernel", "blueprint", "state"):
        table.add_column(column, no_wrap=True)
    for column in ("KB", "load ms", "ratio", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    for kernel in run.kernels:
        if kernel.state != KERNEL_STATE_WANTED:
            table.add_row(*_cells(kernel))
    console.print(table)
    console.print("Load: to prove and open it. Ratio: its step over the eager one's. Error: relative to float64.")
    num_wanted = sum(kernel.state == KERNEL_STATE_WANTED for kernel in run.kernels)
    console.print(f"{num_wanted} more kernels are wanted, for what could still grow there.", highlight=False)
    for seed in run.seeds:
        console.print(_seed_line(seed, run), highlight=False)
    eager_ms, compiled_ms = _median(run.eager_ms), _median(run.compiled_ms)
    if eager_ms is not None and compiled_ms is not None:
        line = (
            f"A step of the run took {eager_ms:.1f} ms with the eager seed, and {compiled_ms:.1f} ms with its kernel."
        )
        console.print(line, highlight=False)
    if run.held_s:
        console.print(f"The run stood still for {run.held_s:.0f} s, only to keep the demo short.", highlight=False)
    console.print(
        f"The daemon had no compiler on its PATH, and these modules that compile: {run.compiler_modules}.",
        highlight=False,
    )


def print_next_kernel_commands(console: Console) -> None:
    """Three commands to try next."""
    console.print("\nNext:")
    for command in (
        "esperd init my-run && esperd serve my-run/esperd.toml",
        "esperctl keys new tezzeret --permission compile --keyring my-run/run/keys.toml --client-file tezzeret.toml",
        "esper tezzeret serve --address unix:my-run/run/leyline.sock --key tezzeret.toml --work-dir tezzeret",
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)


def _cells(kernel: Kernel) -> list[str]:
    state = KernelState.Name(kernel.state).removeprefix("KERNEL_STATE_")
    values = (f"{value:g}" for _, value in sorted(kernel.variant.parameters.items()))
    report = kernel.report
    measured = [f"{report.load_ms:.1f}", f"{report.step_ratio:.2f}", f"{report.max_error:.1e}"]
    return [
        kernel.artifact_id[:SHORT_ID] or "-",
        " ".join([kernel.variant.blueprint_id, *values]),
        state,
        f"{kernel.num_bytes / 1000:.0f}" if kernel.num_bytes else "-",
        *(measured if report.artifact_id else ["-"] * len(measured)),
    ]


def _seed_line(seed: SeedState, run: CompiledRun) -> str:
    steps = [str(swap.step) for swap in run.swaps if swap.seed_id == seed.seed_id]
    stage = SeedLifecycleStage.Name(seed.stage).removeprefix("SEED_STAGE_").lower()
    how = (
        f"computes by kernel {seed.kernel_artifact_id[:SHORT_ID]} since step {steps[-1] if steps else '?'}"
        if seed.kernel_artifact_id
        else f"computes by its eager module ({seed.kernel_note or 'no kernel was offered'})"
    )
    return (
        f"Seed {seed.seed_id}, {seed.blueprint_id} at {seed.site}, {stage}, "
        f"germinated at step {seed.germinated_step}: {how}."
    )


def _kernel_object(kernel: Kernel) -> dict[str, Any]:
    report = kernel.report
    return {
        "artifact_id": kernel.artifact_id,
        "blueprint_id": kernel.variant.blueprint_id,
        "parameters": dict(kernel.variant.parameters),
        "state": KernelState.Name(kernel.state).removeprefix("KERNEL_STATE_"),
        "num_bytes": kernel.num_bytes,
        "load_ms": report.load_ms,
        "step_ratio": report.step_ratio,
        "max_error": report.max_error,
        "detail": kernel.detail,
    }


def _seed_object(seed: SeedState) -> dict[str, Any]:
    return {
        "seed_id": seed.seed_id,
        "site": seed.site,
        "blueprint_id": seed.blueprint_id,
        "germinated_step": seed.germinated_step,
        "kernel_artifact_id": seed.kernel_artifact_id,
        "kernel_note": seed.kernel_note,
        "prewarm_ms": seed.prewarm_ms,
    }


def _median(values: Any) -> float | None:
    return statistics.median(values) if len(values) >= MIN_SAMPLES else None
