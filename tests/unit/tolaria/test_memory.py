"""Out of memory: the newest seed goes, the step is tried once more, and what still does not fit halts the run.

The error is torch's own, raised by real modules in the middle of a step; only that no device is full is different.
"""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esperd.config.settings import BudgetSettings
from esperd.kasmina.ports import StepAdvice
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel, Operation, Stage
from esperd.tolaria.memory import MemoryRelief
from esperd.tolaria.safety import Safety
from tests.unit.kasmina.chaos import chaos_registry
from tests.unit.kasmina.harness import ConvHost, Run, quick


class Memory:
    """How many more allocations fail."""

    def __init__(self) -> None:
        self.num_failures = 0

    def allocate(self) -> None:
        if self.num_failures > 0:
            self.num_failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


class HungryHost(ConvHost):
    """A host whose body takes memory."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        self.memory.allocate()
        return self.head(torch.relu(self.body(x)).mean(dim=(2, 3)))


class Stand:
    """A run whose steps go through the relief, as the trainer's do."""

    def __init__(self, host: type[nn.Module] | None = None) -> None:
        self.memory = Memory()
        model = None if host is None else host(self.memory)
        registry = chaos_registry(slow=self.memory.allocate)
        self.run = Run(model=model, registry=registry, settings=quick(isolation_check_every_steps=1000))
        self.told: list[NoticeEvent] = []
        self.kept: list[tuple[int, str]] = []
        self.safety = Safety(BudgetSettings(), self.run.executor, self.told.append, lambda: 1.0)
        self.relief = MemoryRelief(
            self.run.executor,
            self.safety,
            torch.device("cpu"),
            clear_gradients=self.clear_gradients,
            keep_summary=self.keep,
            report=self.told.append,
            clock=lambda: 1.0,
        )

    def keep(self, step: int, text: str) -> str:
        self.kept.append((step, text))
        return "memory-1.txt"

    def clear_gradients(self) -> None:
        for optimizer in (self.run.optimizers.host, *self.run.optimizers.seeds.values()):
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> Tensor | None:
        """One step; None when it did not fit."""
        run, batch = self.run, self.run.data.draw(8)
        run.step_number += 1
        step = run.step_number

        def work() -> tuple[Tensor, StepAdvice]:
            if run.executor.active:
                run.executor.before_step(step)
            loss = run.host.loss(run.host.forward(batch[0]), batch[1])
            loss.backward()
            advice = run.executor.after_backward(step, batch, loss) if run.executor.active else StepAdvice.STEP
            return loss, advice

        done = self.relief.run(work, step)
        if done is not None:
            run.optimizers.host.step()
        run.optimizers.host.zero_grad()
        if run.executor.active:
            run.executor.after_step(step)
        return None if done is None else done[0]

    def steps(self, count: int) -> None:
        for _ in range(count):
            assert self.step() is not None

    def notice(self, kind: str) -> NoticeEvent:
        (found,) = [notice for notice in self.told if notice.kind == kind]
        return found


def grow(stand: Stand, blueprint: str, site: str, **parameters: float) -> int:
    """A seed in TRAINING."""
    seed_id = stand.run.germinate(blueprint, site, parameters=parameters)
    stand.steps(1)
    stand.run.apply(Operation.START_TRAINING, seed_id)
    stand.steps(1)
    assert stand.run.stage(seed_id) is Stage.TRAINING
    return seed_id


def test_the_newest_seed_goes_and_the_step_is_done_again():
    """In the host's forward: an older seed stays, the culled one's site is embargoed, and a summary is kept."""
    stand = Stand(HungryHost)
    old, new = grow(stand, "residual_conv", "stem"), grow(stand, "residual_conv", "body")
    stand.memory.num_failures = 1
    loss = stand.step()
    assert loss is not None
    assert torch.isfinite(loss)
    assert stand.run.stage(old) is Stage.TRAINING
    culled = stand.run.transitions(new)[-1]
    assert (culled.target, culled.cause) == (Stage.CULLED, "out_of_memory")
    assert stand.kept == [
        (stand.run.step_number, "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.\n")
    ]
    notice = stand.notice("memory.exhausted")
    assert (notice.attributes["seed_id"], notice.attributes["summary"]) == (str(new), "memory-1.txt")
    assert stand.safety.level is EmergencyLevel.ELEVATED
    stand.steps(3)


def test_it_is_the_newest_seed_that_goes_wherever_memory_ran_out():
    """A seed that happens to ask for the last bytes is not to blame for what a younger one took."""
    stand = Stand()
    old = grow(stand, "slow", "stem", delay=0)
    new = grow(stand, "residual_conv", "body")
    stand.memory.num_failures = 1
    assert stand.step() is not None
    assert stand.run.stage(old) is Stage.TRAINING
    assert stand.run.transitions(new)[-1].cause == "out_of_memory"


def test_a_grafted_seed_that_does_not_fit_goes_and_leaves_nothing_in_the_step():
    """Its forward runs inside the host's; afterwards the host is alone and trains on."""
    stand = Stand()
    seed_id = grow(stand, "slow", "body", delay=0)
    run = stand.run
    run.executor._gardener._pending[seed_id] = (1.0, _judged(run, seed_id))
    run.executor._gardener._graft(run.executor._garden.slots["body"], run.seed(seed_id), stand.run.step_number)
    run.seed(seed_id).enter(Stage.BLENDING, stand.run.step_number, "test")
    stand.steps(1)
    stand.memory.num_failures = 1
    assert stand.step() is not None
    assert run.transitions(seed_id)[-1].cause == "out_of_memory"
    assert not run.executor.active
    assert not any(slot.passes or slot.watches for slot in run.executor._garden.slots.values())


def _judged(run: Run, seed_id: int) -> Any:
    run.executor._gardener.ask(run.seed(seed_id), 10)
    return run.executor._gardener._pending.pop(seed_id)[1]


def test_what_does_not_fit_without_the_newest_seed_halts_the_run():
    """The step is left out; an operator who clears the halt lets the next seed go, if it must."""
    stand = Stand(HungryHost)
    old, new = grow(stand, "residual_conv", "stem"), grow(stand, "residual_conv", "body")
    stand.memory.num_failures = 2
    assert stand.step() is None
    assert stand.safety.is_halted
    assert stand.safety.halting() == ["memory"]
    assert stand.safety.take_checkpoint_wish()
    assert all(parameter.grad is None for parameter in stand.run.model.parameters())
    assert (stand.run.stage(old), stand.run.stage(new)) == (Stage.TRAINING, Stage.CULLED)
    stand.safety.clear("memory", stand.run.step_number)
    stand.steps(3)


def test_a_host_that_does_not_fit_by_itself_fails_in_the_words_of_the_catalogue():
    """There is nothing to cull; the summary is kept all the same."""
    stand = Stand(HungryHost)
    stand.steps(1)
    stand.memory.num_failures = 1
    with pytest.raises(EsperdError, match=r"E-DEV-003.*no seed is left to cull.*20.00 GiB"):
        stand.step()
    assert len(stand.kept) == 1


def test_seeds_that_keep_running_out_of_memory_open_the_executors_breaker():
    """Three within its memory: no new seeds for a while."""
    stand = Stand(HungryHost)
    seeds = [grow(stand, "residual_conv", site) for site in ("stem", "body", "body")]
    for seed_id in reversed(seeds):
        stand.memory.num_failures = 1
        assert stand.step() is not None
        assert stand.run.transitions(seed_id)[-1].cause == "out_of_memory"
    assert stand.safety.breakers["executor"].state is BreakerState.OPEN
    with pytest.raises(EsperdError, match="E-SEED-010"):
        stand.run.germinate("residual_conv", "body")


def test_nothing_of_the_first_try_is_alive_when_the_second_begins():
    """The error's traceback holds the frames of the step, and these its tensors: room is made only when they go."""
    stand = Stand()
    seed_id = grow(stand, "residual_conv", "body")
    kept: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    def work() -> str:
        alive.extend(one() is not None for one in kept)
        large = torch.ones(1000, requires_grad=True) * 2
        kept.append(weakref.ref(large))
        if len(kept) == 1:
            raise torch.OutOfMemoryError("full")
        return "done"

    gc.disable()
    try:
        assert stand.relief.run(work, 5) == "done"
    finally:
        gc.enable()
    assert alive == [False]
    assert stand.run.transitions(seed_id)[-1].target is Stage.CULLED
