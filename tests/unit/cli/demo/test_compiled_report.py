"""What `esperd demo --kernels` tells of a run."""

import io
import json

from esper.leyline.v1.kernel_pb2 import (
    KERNEL_STATE_COMPILING,
    KERNEL_STATE_OFFERED,
    KERNEL_STATE_WANTED,
    Kernel,
    KernelReport,
    KernelVariant,
)
from esper.leyline.v1.state_pb2 import Run, SeedState
from esper.leyline.v1.vocabulary_pb2 import SEED_STAGE_FOSSILIZED
from rich.console import Console

from esperd.cli.demo.compiled_report import compiled_json, print_compiled
from esperd.cli.demo.compiled_run import CompiledRun, Swap, describe_kernels
from esperd.cli.demo.tasks import BYTES

OFFERED = Kernel(
    artifact_id="ab" * 32,
    state=KERNEL_STATE_OFFERED,
    variant=KernelVariant(blueprint_id="transformer_block", parameters={"num_layers": 3.0}),
    num_bytes=2_000_000,
    report=KernelReport(artifact_id="ab" * 32, load_ms=2.04, step_ratio=0.84, max_error=2e-7),
)
WANTED = Kernel(state=KERNEL_STATE_WANTED, variant=KernelVariant(blueprint_id="lora"))
SEED = SeedState(
    seed_id="1",
    site="blocks.0",
    blueprint_id="transformer_block",
    stage=SEED_STAGE_FOSSILIZED,
    germinated_step=751,
    kernel_artifact_id="ab" * 32,
)
RUN = CompiledRun(
    run=Run(global_step=5000, val_loss=1.54),
    seeds=[SEED],
    kernels=[OFFERED, WANTED],
    swaps=[Swap(3002, "1")],
    held_s=0.0,
    compiler_modules="none",
    eager_ms=[17.0] * 9,
    compiled_ms=[15.0] * 9,
    daemon_pid=1,
    compiler_pid=2,
)


def told(run: CompiledRun) -> str:
    """What is printed."""
    stream = io.StringIO()
    print_compiled(BYTES, run, Console(file=stream, width=80))
    return stream.getvalue()


def test_a_terminal_of_80_columns_shows_every_figure() -> None:
    """The kernel with its size, load, ratio and error, uncut; what is only wanted is counted."""
    text = told(RUN)
    row = next(line for line in text.splitlines() if "OFFERED" in line)
    assert row.split() == ["abababab", "transformer_block", "3", "OFFERED", "2000", "2.0", "0.84", "2.0e-07"]
    assert "1 more kernels are wanted" in text


def test_a_seed_is_told_with_how_it_computes_and_since_when() -> None:
    """The step of its swap; or why it runs eager."""
    assert "computes by kernel abababab since step 3002" in " ".join(told(RUN).split())
    eager = SeedState(seed_id="1", kernel_note="no kernel is offered yet")
    alone = CompiledRun(RUN.run, [eager], [], [], 3.0, "none", [], [], 1, 2)
    text = " ".join(told(alone).split())
    assert "its eager module (no kernel is offered yet)" in text
    assert "stood still for 3 s" in text
    assert "with the eager seed" not in text


def test_the_object_has_what_tools_read() -> None:
    """One seed, one kernel for each row, the step times, and what compiles in the daemon."""
    told = json.loads(json.dumps(compiled_json(BYTES, RUN)))
    assert told["seeds"][0]["kernel_artifact_id"] == "ab" * 32
    assert told["step_ms"] == {"eager": 17.0, "compiled": 15.0}
    assert told["compiler_modules_in_daemon"] == "none"
    assert [kernel["state"] for kernel in told["kernels"]] == ["OFFERED", "WANTED"]


def test_the_line_counts_kernels_by_state() -> None:
    """And the seeds that run by one."""
    compiling = Kernel(state=KERNEL_STATE_COMPILING)
    line = describe_kernels([WANTED, WANTED, compiling, OFFERED], [SEED, SeedState()])
    assert line == "kernels: 1 compiling, 1 offered, 2 wanted; 1 of 2 seeds compiled"
