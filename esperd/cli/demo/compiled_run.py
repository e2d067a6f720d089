"""One run whose seeds are compiled beside it: a daemon that finds no compiler, a policy that grows it, and Tezzeret.

Event loop of the demo. Seeds grow at once by their eager modules; kernels come when they come. Only to keep the demo
short the run stands still, near its end, while a seed waits for its kernel.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from esper.client.aio import AsyncClient
from esper.leyline.v1.admin_service_pb2 import DiagnosticSection
from esper.leyline.v1.command_pb2 import (
    RUN_ACTION_PAUSE,
    RUN_ACTION_RESUME,
    AdaptationCommand,
    CommandRunControl,
    RunAction,
)
from esper.leyline.v1.kernel_pb2 import (
    KERNEL_STATE_COMPILE_FAILED,
    KERNEL_STATE_QUARANTINED,
    Kernel,
    KernelState,
)
from esper.leyline.v1.state_pb2 import Run, SeedState
from esper.leyline.v1.vocabulary_pb2 import (
    SEED_STAGE_FOSSILIZED,
    TRAINER_PHASE_FAILED,
    TRAINER_PHASE_FINISHED,
    TRAINER_PHASE_TRAINING,
)

from esperd.cli.demo.children import Child, start_child
from esperd.cli.demo.configuration import DemoFiles, RunFiles
from esperd.cli.demo.grown_run import CULLED_STAGES, LOOK_S, applied_commands, running_daemon, start_policy
from esperd.cli.demo.live import describe_run

HOLD_SHARE = 0.6
"""The share of the run after which it stands still for a kernel that a seed waits for."""
MAX_HOLD_S = 300.0
SWAPS = ("kernel", "KernelSwapCommand")
"""Kinds of command that change what a seed computes by: of a client, and of the daemon itself."""
LOST = (KERNEL_STATE_COMPILE_FAILED, KERNEL_STATE_QUARANTINED)
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Swap:
    """One seed's change from its eager module to a kernel."""

    step: int
    seed_id: str


@dataclass(frozen=True, slots=True)
class CompiledRun:
    """What there was to see."""

    run: Run
    seeds: Sequence[SeedState]
    kernels: Sequence[Kernel]
    swaps: Sequence[Swap]
    held_s: float
    """How long the run stood still for a kernel."""
    compiler_modules: str
    """Those of the daemon's process that compile, as it tells itself; `none`."""
    eager_ms: Sequence[float]
    """Step times seen while nothing grew but the one fossil of the end, and that ran eager."""
    compiled_ms: Sequence[float]
    """The same while it ran by its kernel."""
    daemon_pid: int
    compiler_pid: int


async def run_compiled(
    name: str, demo: DemoFiles, files: RunFiles, policy_arguments: list[str], num_jobs: int, show: Show
) -> CompiledRun:
    """Start daemon, compiler and policy, wait until the run has finished, look at everything, end them.

    Raises:
        EsperdError: RUN_FAILED, with the last log lines of the process that broke.
    """
    nothing = files.directory / "no-compiler-here"
    nothing.mkdir()
    async with running_daemon(name, demo, files, nothing) as (daemon, client):
        compiler = await _start_compiler(name, demo, files, num_jobs)
        policy = await start_policy(name, demo, files, policy_arguments)
        try:
            watched = _Watched(client, show, name)
            await watched.until_finished(daemon, compiler, policy)
            return await _look(client, watched, daemon, compiler)
        finally:
            await asyncio.gather(policy.terminate(), compiler.terminate())


async def _start_compiler(name: str, demo: DemoFiles, files: RunFiles, num_jobs: int) -> Child:
    arguments = ["tezzeret", "serve", "--address", files.address, "--key", str(demo.compiler_key)]
    arguments += ["--work-dir", str(files.directory / "tezzeret"), "--jobs", str(num_jobs)]
    return await start_child(f"{name} compiler", "esper.cli", arguments, files.directory / "tezzeret.log")


@dataclass(slots=True)
class _Watched:
    """Looks at the run until it has finished, and holds it where the demo would otherwise end too soon."""

    client: AsyncClient
    show: Show
    name: str
    held_s: float = 0.0
    _held_at_s: float | None = None
    _may_hold: bool = True
    _settled: dict[tuple[str, bool], list[float]] = field(default_factory=dict)
    """Step times while nothing but one fossil was there, by the fossil and whether it ran by a kernel."""

    async def until_finished(self, daemon: Child, compiler: Child, policy: Child) -> None:
        """Look until then. Raises EsperdError RUN_FAILED."""
        while True:
            daemon.check_alive()
            compiler.check_alive()
            if policy.process.returncode not in (None, 0):
                policy.check_alive()
            run, seeds = (await self.client.run()).run, await _present(self.client)
            if run.phase == TRAINER_PHASE_FINISHED:
                return
            if run.phase == TRAINER_PHASE_FAILED:
                raise daemon.failure(f"the run {self.name} failed: {run.failure}")
            kernels = (await self.client.kernels()).kernels
            self.show(f"{describe_run(self.name, run, seeds)}  {describe_kernels(kernels, seeds)}")
            self._note(run, seeds)
            await self._hold(run, kernels)
            await asyncio.sleep(LOOK_S)

    def settled_ms(self, seeds: Sequence[SeedState]) -> tuple[list[float], list[float]]:
        """Step times of the one fossil of the end: eager, and by its kernel; empty when there are several."""
        (seed_id,) = [seed.seed_id for seed in seeds] if len(seeds) == 1 else [""]
        return self._settled.get((seed_id, False), []), self._settled.get((seed_id, True), [])

    def _note(self, run: Run, seeds: Sequence[SeedState]) -> None:
        if len(seeds) == 1 and seeds[0].stage == SEED_STAGE_FOSSILIZED and run.phase == TRAINER_PHASE_TRAINING:
            key = (seeds[0].seed_id, bool(seeds[0].kernel_artifact_id))
            self._settled.setdefault(key, []).append(run.step_ms)

    async def _hold(self, run: Run, kernels: Sequence[Kernel]) -> None:
        """Pause near the end while a seed waits for a kernel that may still come; go on when it waits no more."""
        waits = any(kernel.num_waiting_seeds and kernel.state not in LOST for kernel in kernels)
        now_s = time.monotonic()
        if self._held_at_s is not None:
            if not waits or now_s - self._held_at_s > MAX_HOLD_S:
                self.held_s, self._held_at_s = now_s - self._held_at_s, None
                await self._control(RUN_ACTION_RESUME, "its kernel is there")
        elif self._may_hold and waits and run.global_step >= HOLD_SHARE * run.num_steps_total:
            self._may_hold, self._held_at_s = False, now_s
            await self._control(RUN_ACTION_PAUSE, "a seed waits for its kernel, and the demo shall be short")

    async def _control(self, action: RunAction, reason: str) -> None:
        await self.client.submit(AdaptationCommand(reason=reason, run_control=CommandRunControl(action=action)))


async def _look(client: AsyncClient, watched: _Watched, daemon: Child, compiler: Child) -> CompiledRun:
    seeds = await _present(client)
    eager_ms, compiled_ms = watched.settled_ms(seeds)
    return CompiledRun(
        run=(await client.run()).run,
        seeds=seeds,
        kernels=(await client.kernels()).kernels,
        swaps=[
            Swap(command.global_step, command.seed_id)
            for command in reversed(await applied_commands(client))
            if command.kind in SWAPS
        ],
        held_s=watched.held_s,
        compiler_modules=_fact((await client.diagnostics("the end of the demo")).sections, "compiler modules"),
        eager_ms=eager_ms,
        compiled_ms=compiled_ms,
        daemon_pid=daemon.pid,
        compiler_pid=compiler.pid,
    )


async def _present(client: AsyncClient) -> list[SeedState]:
    """Live and fossilized seeds."""
    return [seed for seed in (await client.seeds()).seeds if seed.stage not in CULLED_STAGES]


def describe_kernels(kernels: Sequence[Kernel], seeds: Sequence[SeedState]) -> str:
    """`kernels: 1 compiling, 2 offered; 1 of 2 seeds compiled`."""
    counts: dict[str, int] = {}
    for kernel in kernels:
        name = KernelState.Name(kernel.state).removeprefix("KERNEL_STATE_").lower().replace("_", " ")
        counts[name] = counts.get(name, 0) + 1
    told = ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"
    num_compiled = sum(bool(seed.kernel_artifact_id) for seed in seeds)
    return f"kernels: {told}; {num_compiled} of {len(seeds)} seeds compiled"


def _fact(sections: Sequence[DiagnosticSection], name: str) -> str:
    """One line of a dump of the daemon."""
    lines = (line for section in sections for line in section.text.splitlines())
    return next((line.removeprefix(name).strip() for line in lines if line.startswith(name)), "not told")
