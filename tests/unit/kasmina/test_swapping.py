"""Seeds and kernels through a whole life: native where it counts, eager everywhere else, and every way back is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from esperd.bridge.kernel_orders import KernelOrders
from esperd.config.settings import KernelSettings
from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.stock import KernelStock
from esperd.kasmina.ports import Attribution
from esperd.leyline.commands import KernelSwapCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import Isolation, Operation, Stage, TrainingMode
from tests.unit.kasmina.kernels.made import CPU, ModuleRunner, linear_kernel, module_kernel, variant_at
from tests.unit.tolaria.restoring import World

SITE, TAIL, BLUEPRINT = "body", (6, 6, 6), "residual_conv"
STAGES = (Stage.TRAINING, Stage.BLENDING, Stage.PROBATIONARY, Stage.FOSSILIZED)


class Compiled(World):
    """A run with one kernel, for batches up to 64, in its stock."""

    def __init__(self, **changes: Any) -> None:
        self.kernel = module_kernel(variant_at(BLUEPRINT, TAIL), **{"min_batch": 1, "max_batch": 64, **changes})
        self.recorded: list[Any] = []
        stock = KernelStock(
            KernelSettings(), KernelOrders(lambda: None), self._open, Path(), CPU, self.recorded.append, lambda: 0.0
        )
        self.stock = stock
        super().__init__(sites=(SITE,), kernels=stock)

    def _open(self, folder: Path) -> Kernel:
        if folder.name != self.kernel.artifact_id:
            raise EsperdError("KERNEL_UNKNOWN", artifact_id=folder.name)
        return self.kernel

    def swap(self, artifact_id: str | None = None, *, is_repeated: bool = False, seed_id: int = 1) -> int:
        wanted = self.kernel.artifact_id if artifact_id is None else artifact_id
        command = KernelSwapCommand(seed_id, wanted)
        return self.executor.swap_kernel(command, self.step_number, Attribution("c-2"), is_repeated=is_repeated)

    def grown(self, stage: Stage, **fields: Any) -> "Compiled":
        """A seed that has come to a stage without a kernel."""
        self.germinate(BLUEPRINT, SITE, **fields)
        self.grow(1, stage)
        return self

    def attach(self) -> "Compiled":
        self.stock.fetched_now(self.kernel.artifact_id)
        self.swap()
        return self

    def runs(self) -> tuple[int, int, int]:
        found = [getattr(self.kernel, name).__self__ for name in ("forward", "backward", "parameter_backward")]
        assert all(isinstance(runner, ModuleRunner) for runner in found)
        return tuple(runner.num_runs for runner in found)  # type: ignore[return-value]


def reason(act: Callable[[], Any]) -> str:
    with pytest.raises(EsperdError) as refused:
        act()
    return refused.value.reason


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("mode", [TrainingMode.GRADIENT_MATCHING, TrainingMode.SHADOW_FORWARD])
def test_a_seed_learns_by_its_kernel_as_it_learns_by_its_module(stage: Stage, mode: TrainingMode):
    """From any stage on: the weights of seed and host stay what they are without it, but for rounding."""
    compiled, eager = (Compiled().grown(stage, training_mode=mode) for _ in range(2))
    compiled.attach()
    before = compiled.runs()
    for run in (compiled, eager):
        run.steps(8)
    after = compiled.runs()
    assert after[0] - before[0] >= 8
    is_joint = compiled.seed(1).joint
    assert after[1] - before[1] == (8 if is_joint else 0)
    assert after[2] - before[2] == (0 if is_joint else 8)
    assert not compiled.notices("kernel.fallback")
    pairs = [*zip(compiled.seed(1).parameters, eager.seed(1).parameters, strict=True)]
    pairs += [*zip(compiled.model.parameters(), eager.model.parameters(), strict=True)]
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("isolation", [Isolation.DEFAULT, Isolation.STRICT, Isolation.RELEASED])
def test_every_isolation_takes_a_kernel(isolation: Isolation):
    """Whether the seed's input is attached or not decides only which backward runs."""
    run = Compiled().grown(Stage.BLENDING, isolation=isolation).attach()
    run.steps(3)
    assert not run.notices("kernel.fallback")
    assert not run.notices("guard.tripped")
    assert run.runs()[0] >= 3


def test_what_is_no_training_goes_through_the_module():
    """Evaluation, probes, averaged weights, exports: none of them runs a kernel, none of them tells of it."""
    run = Compiled().grown(Stage.FOSSILIZED).attach()
    before = run.runs()
    run.model.eval()
    batch, _ = run.held_out.draw(8)
    run.model(batch)
    with torch.no_grad():
        run.model.train()
        run.model(batch)
    run.executor.fold()(batch)
    assert run.runs() == before
    assert not run.notices("kernel.fallback")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("library", ["forward", "backwards"])
def test_a_fault_costs_no_step_and_no_seed(stage: Stage, library: str):
    """What the module computes in its place is exact: host and seed go on as if there had never been a kernel."""
    compiled, eager = (Compiled().grown(stage) for _ in range(2))
    compiled.attach()
    if library == "forward":
        compiled.kernel.forward = broken
    else:
        compiled.kernel.backward = compiled.kernel.parameter_backward = broken
    for run in (compiled, eager):
        run.steps(4)
    assert len(compiled.notices("kernel.failed")) == 1
    (told,) = compiled.notices("kernel.fallback")
    assert "no longer bit for bit" in told.message
    view = compiled.view(1)
    assert view is not None
    assert (view.kernel_artifact_id, view.stage) == ("", eager.stage(1))
    assert "gives up" in view.kernel_note
    for one, other in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert reason(compiled.swap) == "KERNEL_UNLOADABLE"


def test_a_fault_takes_the_kernel_from_every_seed_that_shares_it():
    """It would fail there too."""
    run = Compiled()
    for _ in range(2):
        run.germinate(BLUEPRINT, SITE)
    for seed_id in (1, 2):
        run.grow(seed_id, Stage.TRAINING)
    run.stock.fetched_now(run.kernel.artifact_id)
    run.swap(seed_id=1)
    run.swap(seed_id=2)
    assert run.seed(1).attached.kernel is run.seed(2).attached.kernel
    run.kernel.forward = broken
    run.step()
    assert [event.attributes["seed_id"] for event in run.notices("kernel.fallback")] == ["1", "2"]
    assert len(run.notices("kernel.failed")) == 1


def test_swaps_that_are_refused_change_nothing():
    """Not in memory, for something else, unknown seed, no kernels at all."""
    run = Compiled().grown(Stage.TRAINING)
    assert reason(run.swap) == "KERNEL_NOT_RESIDENT"
    assert reason(lambda: run.swap(seed_id=5)) == "SEED_UNKNOWN"
    other = Compiled().grown(Stage.TRAINING)
    other.kernel = linear_kernel()
    other.stock.fetched_now(other.kernel.artifact_id)
    assert reason(other.swap) == "KERNEL_MISFIT"
    plain = World(sites=(SITE,))
    plain.germinate(BLUEPRINT, SITE)
    command = KernelSwapCommand(1, "a" * 64)
    by = Attribution("c")
    assert reason(lambda: plain.executor.swap_kernel(command, 0, by, is_repeated=False)) == "KERNELS_DISABLED"
    for one in (run, other):
        view = one.view(1)
        assert view is not None
        assert (view.kernel_artifact_id, view.refuses_kernels) == ("", False)


def test_a_past_that_cannot_be_repeated_is_told():
    """The command took effect then; now the seed runs eager, and the run is said to be no longer exact."""
    run = Compiled().grown(Stage.TRAINING)
    assert run.swap("f" * 64, is_repeated=True) == 1
    (told,) = run.notices("kernel.fallback")
    assert "no longer bit for bit" in told.message
    assert run.swap(is_repeated=True) == 1
    view = run.view(1)
    assert view is not None
    assert view.kernel_artifact_id == run.kernel.artifact_id


def test_a_state_brings_its_kernels_back_and_says_when_it_cannot():
    """By the artifact id alone; the state holds no code."""
    run = Compiled().grown(Stage.BLENDING).attach()
    saved = run.saved()
    again = Compiled().load(saved)
    again.executor.restore_kernels(again.step_number)
    assert again.seed(1).attached is not None
    expected, found = run.follow(4), again.follow(4)
    assert all(map(torch.equal, expected["losses"], found["losses"]))
    without = World(sites=(SITE,)).load(saved)
    without.executor.restore_kernels(without.step_number)
    assert len(without.notices("kernel.fallback")) == 1
    assert without.seed(1).attached is None
    assert without.seed(1).kernel_artifact_id == ""


def test_a_culled_seed_lets_go_of_everything():
    """The kernel stays in memory for others, and holds nothing of the seed."""
    run = Compiled().grown(Stage.TRAINING).attach()
    run.steps(2)
    run.apply(Operation.CULL, 1)
    remains = run.executor._garden.remains[0]
    assert remains.num_reachable == 0
    assert not run.stock.in_use()
    assert run.stock.cache.close(run.kernel.artifact_id)


def test_a_batch_of_another_size_runs_eager_and_is_told_once():
    """The last batch of an epoch, for instance."""
    run = Compiled().grown(Stage.TRAINING).attach()
    run.batch_size = 70
    run.steps(3)
    (told,) = run.notices("kernel.fallback")
    assert "the batch is 70" in told.message
    assert "bit for bit" not in told.message
    run.batch_size = 16
    before = run.runs()[0]
    run.step()
    assert run.runs()[0] == before + 1


def broken(_inputs: object) -> list[Tensor]:
    raise RuntimeError("the library gives up")
