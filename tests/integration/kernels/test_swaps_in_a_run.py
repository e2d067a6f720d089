"""A trainer whose seeds compute by real kernels: swaps, restarts, rollbacks and faults, step by step."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from esperd.config.settings import KernelSettings
from esperd.kasmina.ports import Attribution
from esperd.leyline.commands import KernelSwapCommand, Payload, RollbackCommand
from esperd.leyline.kernels import KernelClosed, KernelLoaded, KernelOrder
from esperd.leyline.views import SeedView
from esperd.leyline.vocabulary import BreakerState, CommandState, EmergencyLevel
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.past import RunPast
from tests.kernels import compiled
from tests.unit.kasmina.kernels.offered import Witness, offered
from tests.unit.tolaria.harness import Run
from tests.unit.tolaria.test_resuming import NUM_STEPS, Journalled, assert_same, germinate, settings, state_of

pytestmark = pytest.mark.timeout(400)  # the first one compiles the kernel, once on a machine
PATIENCE_S = 30.0


class Kerneled(Journalled):
    """A journalled run in whose directory one kernel for its seeds lies."""

    def __init__(self, directory: Path, past: RunPast | None = None, **kernels: Any) -> None:
        self.store = CheckpointStore(directory / "checkpoints")
        local = directory / "kernels" / "local"
        chosen = settings(snapshot_every_steps=10)
        chosen = replace(
            chosen,
            run=replace(chosen.run, directory=str(directory)),
            kernels=KernelSettings(**{"fetch_budget_ms": 1e6, **kernels}),
        )
        read = None if past is None else (lambda **_: past)
        options = {"store": self.store, "read_past": read, "keeps_unsettled": True, "kernel_trust": Witness()}
        Run.__init__(self, settings=chosen, **options)
        self.commands = {}
        self.local = local
        self.artifact_id = next((path.name for path in local.glob("*")), "")
        if not self.artifact_id:
            self.artifact_id = offered(compiled("residual_mlp", (8, 8)), local)

    def begin(self) -> "Kerneled":
        self.trainer.parts.kernels.start()
        super().begin()
        return self

    def end(self) -> "Kerneled":
        self.trainer.parts.kernels.close()
        super().end()
        return self

    def fetch(self, artifact_id: str = "", copy_ms: float = 0.0) -> KernelLoaded:
        """Order the kernel and let the run come to a safe point at which it is there."""
        artifact_id = artifact_id or self.artifact_id
        self.bridge.load_kernel(KernelOrder(artifact_id, str(self.local / artifact_id), copy_ms))
        deadline = time.monotonic() + PATIENCE_S
        while not self.bridge.kernel_orders.has_mail:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        self.trainer.parts.kernels.tend()
        return [event for event in self.take() if isinstance(event, KernelLoaded)][-1]

    def seed(self, seed_id: int = 1) -> SeedView:
        return next(view for view in self.trainer.executor.seeds() if view.seed_id == seed_id)

    def swap(self, artifact_id: str, seed_id: int = 1) -> Any:
        asked = self.submit(KernelSwapCommand(seed_id, artifact_id))
        self.steps(1)
        return self.outcome(asked)

    def grown(self) -> "Kerneled":
        """Begin, with a seed that stays a candidate."""
        self.begin()
        candidate = replace(germinate(), auto_advance_until="TRAINING")
        self.script([(5, candidate)]).until(12)
        return self


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


def parameters_and_optimizer(run: Kerneled) -> list[torch.Tensor]:
    """Everything that a swap must leave alone."""
    seed = run.trainer.executor._garden.seeds[1]
    state = run.trainer.optimizers._seeds[1].optimizer.state
    found = [p.detach().clone() for p in seed.parameters] + [average.clone() for average in seed.ema]
    return found + [torch.as_tensor(value).clone() for p in seed.parameters for value in state[p].values()]


def script(artifact_id: str) -> list[tuple[int, Payload]]:
    return [
        (5, germinate()),
        (22, KernelSwapCommand(1, artifact_id)),
        (60, germinate()),
        (66, KernelSwapCommand(2, artifact_id)),
        (90, KernelSwapCommand(2, "")),
    ]


def test_a_swap_changes_nothing_but_how_the_seed_computes(directory: Path):
    """Parameters, averages and optimizer state are bit for bit what they were; the seed learns on with the kernel."""
    run = Kerneled(directory).grown()
    loaded = run.fetch()
    assert not loaded.error_reason
    assert loaded.load_ms > 0.0 < loaded.prewarm_ms
    before = parameters_and_optimizer(run)
    run.trainer.executor.swap_kernel(KernelSwapCommand(1, run.artifact_id), 12, Attribution("test"), is_repeated=False)
    assert all(map(torch.equal, before, parameters_and_optimizer(run)))
    assert run.seed().kernel_artifact_id == run.artifact_id
    assert run.seed().prewarm_ms == loaded.prewarm_ms
    run.steps(5)
    assert not run.notices("kernel.fallback")
    assert not all(map(torch.equal, before, parameters_and_optimizer(run)))
    run.trainer.executor.swap_kernel(KernelSwapCommand(1), 17, Attribution("test"), is_repeated=False)
    assert (run.seed().kernel_artifact_id, run.seed().refuses_kernels) == ("", True)
    assert [event.attributes["artifact_id"] for event in run.notices("kernel.swapped")] == [run.artifact_id, ""]
    run.end()


def test_the_host_does_not_feel_a_candidates_kernel(directory: Path):
    """While the seed is in TRAINING every weight of the host is bit for bit what it is with an eager seed."""
    found = []
    for has_kernel in (True, False):
        run = Kerneled(directory / str(has_kernel)).grown()
        if has_kernel:
            run.fetch()
            assert run.swap(run.artifact_id).state is CommandState.APPLIED
        run.until(30)
        assert run.seed().stage.name == "TRAINING"
        found.append(run.task.model.state_dict())
        run.end()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("broken_off_at", [21, 22, 23, 55, 70, 95])
def test_a_run_with_kernels_that_is_broken_off_ends_as_if_it_had_not_been(directory: Path, broken_off_at: int):
    """The journal says at which step a seed's forward changed; the kernel comes from the run's own folder."""
    whole = Kerneled(directory.with_name("whole"))
    whole.script(script(whole.artifact_id)).begin()
    whole.fetch()
    whole.until(NUM_STEPS)
    whole.end()
    first = Kerneled(directory)
    first.script(script(first.artifact_id)).begin()
    first.fetch()
    first.until(broken_off_at)
    first.trainer._keeper._writer.wait_idle(PATIENCE_S)
    first.trainer._keeper.take_results()
    first.end()
    stored = [one.manifest for one in CheckpointStore.reader(directory / "checkpoints").list()]
    sequence, step = (stored[-1].sequence, stored[-1].global_step) if stored else (0, 0)
    second = Kerneled(directory, first.past(sequence, step)).begin()
    second.until(broken_off_at)
    second.fetch()
    second.until(NUM_STEPS)
    second.end()
    assert not second.notices("replay.diverged")
    assert not second.notices("kernel.fallback")
    assert whole.seed().kernel_artifact_id == second.seed().kernel_artifact_id == whole.artifact_id
    assert_same(state_of(whole), state_of(second))


def test_a_restart_without_the_kernel_goes_on_eager_and_says_that_it_is_not_exact(directory: Path):
    """Nothing is hidden: the event says from where the run is another one."""
    first = Kerneled(directory)
    first.script(script(first.artifact_id)).begin()
    first.fetch()
    first.until(55)
    first.trainer._keeper._writer.wait_idle(PATIENCE_S)
    first.trainer._keeper.take_results()
    first.end()
    for library in (first.local / first.artifact_id).glob("*.so"):
        library.unlink()
    newest = CheckpointStore.reader(directory / "checkpoints").list()[-1].manifest
    second = Kerneled(directory, first.past(newest.sequence, newest.global_step)).begin()
    (told,) = second.notices("kernel.fallback")
    assert "no longer bit for bit" in told.message
    assert second.seed().kernel_artifact_id == ""
    assert "cannot be opened" in second.seed().kernel_note
    second.until(60)
    second.end()


def test_a_rollback_brings_back_what_computed_then(directory: Path):
    """Before the swap the seed is eager again, after it the kernel is joined again; no exactness is lost."""
    run = Kerneled(directory).grown()
    run.fetch()
    run.until(52)
    run.swap(run.artifact_id)
    run.until(75)
    for step, artifact_id in ((70, run.artifact_id), (40, "")):
        run.submit(RollbackCommand(global_step=step))
        run.steps(1)
        assert run.trainer.parts.progress.global_step in (step, step + 1)
        assert run.seed().kernel_artifact_id == artifact_id
    assert not run.notices("kernel.fallback")
    run.end()


def test_a_kernel_that_is_not_in_memory_is_refused(directory: Path):
    """KERNEL_NOT_RESIDENT; the seed goes on as it was."""
    run = Kerneled(directory).grown()
    outcome = run.swap(run.artifact_id)
    assert outcome.state is CommandState.REJECTED
    assert outcome.refusal.reason == "KERNEL_NOT_RESIDENT"
    assert run.swap(run.artifact_id, seed_id=9).refusal.reason == "SEED_UNKNOWN"
    run.end()


@pytest.mark.parametrize(
    ("library", "detail"),
    [("forward", "its forward raised"), ("backward", "its backward raised"), ("both", "its forward raised")],
)
def test_a_kernel_that_fails_leaves_the_seed_its_step_and_its_life(directory: Path, library: str, detail: str):
    """The module computes the very step; the kernel is never used again; the host and the seed live on."""
    run = Kerneled(directory).grown()
    run.fetch()
    run.swap(run.artifact_id)
    kernel = run.trainer.executor._garden.seeds[1].attached.kernel  # type: ignore[union-attr]

    def broken(_inputs: Any) -> Any:
        raise RuntimeError("the library gives up\nat length")

    if library != "backward":
        kernel.forward = broken
    if library != "forward":
        kernel.backward = kernel.parameter_backward = broken
    before = [parameter.detach().clone() for parameter in run.trainer.executor._garden.seeds[1].parameters]
    run.steps(1)
    (failed,) = run.notices("kernel.failed")
    assert failed.message.endswith(f"{detail} RuntimeError: the library gives up")
    assert len(run.notices("kernel.fallback")) == 1
    assert run.seed().kernel_artifact_id == ""
    assert run.swap(run.artifact_id).refusal.reason == "KERNEL_UNLOADABLE"
    assert [event.cause for event in run.take() if isinstance(event, KernelClosed)] == ["failed"]
    after = run.trainer.executor._garden.seeds[1].parameters
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    run.steps(5)
    assert run.seed().stage.name == "TRAINING"
    assert run.trainer.safety.breakers["kernel"].view().num_failures == 1
    run.end()


def test_loads_that_fail_open_the_breaker_which_only_keeps_seeds_eager(directory: Path):
    """KERNEL_BREAKER_OPEN at the next swap; a NOTICE is all the emergency there is; an operator's close lets it on."""
    run = Kerneled(directory).grown()
    run.fetch()
    for _ in range(3):
        assert run.fetch("f" * 64).error_reason == "KERNEL_MANIFEST_INVALID"
    breaker = run.trainer.safety.breakers["kernel"]
    assert breaker.state is BreakerState.OPEN
    assert run.trainer.safety.level is EmergencyLevel.NOTICE
    assert run.swap(run.artifact_id).refusal.reason == "KERNEL_BREAKER_OPEN"
    run.until(run.trainer.parts.progress.global_step + 230)
    assert run.trainer.safety.breakers["kernel"].state is not BreakerState.OPEN
    assert run.swap(run.artifact_id).state is CommandState.APPLIED
    run.end()


def test_a_slow_fetch_is_told_and_used(directory: Path):
    """In a run that must repeat bit for bit no clock counts against the breaker."""
    run = Kerneled(directory, fetch_budget_ms=500.0).grown()
    assert not run.fetch(copy_ms=600.0).error_reason
    assert len(run.notices("kernel.fetch_slow")) == 1
    assert run.trainer.safety.breakers["kernel"].view().num_failures == 0
    assert run.swap(run.artifact_id).state is CommandState.APPLIED
    run.end()


def test_a_kernel_is_closed_when_asked_unless_a_seed_uses_it(directory: Path):
    """What a seed computes by stays, whoever asks."""
    run = Kerneled(directory).grown()
    run.fetch()
    run.swap(run.artifact_id)
    run.bridge.close_kernel(run.artifact_id)
    run.steps(1)
    assert not [event for event in run.take() if isinstance(event, KernelClosed)]
    run.swap("")
    run.bridge.close_kernel(run.artifact_id)
    run.steps(1)
    assert [event.cause for event in run.take() if isinstance(event, KernelClosed)] == ["asked"]
    run.end()
