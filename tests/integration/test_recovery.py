"""What goes wrong in training is survived: bounded loss, recovery without anybody's help, and evidence in the journal.

A real trainer on the digits task, in this process, so that a gradient, a batch or a seed can be poisoned at one exact
step. Where the cause does not come back, the run ends bit for bit where it would have ended without it.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esperd.config.settings import (
    BudgetSettings,
    CheckpointSettings,
    RunSettings,
    Settings,
    TrainingSettings,
)
from esperd.examples import digits
from esperd.kasmina.blueprints.registry import standard_registry
from esperd.leyline.commands import (
    CheckpointCommand,
    Command,
    EmergencyCommand,
    HyperparameterCommand,
    RollbackCommand,
    StopCommand,
)
from esperd.leyline.views import CheckpointEvent, NoticeEvent, TimelineEvent, TransitionEvent
from esperd.leyline.vocabulary import CommandState, EmergencyLevel, Operation, RollbackTier, Stage, TrainerPhase
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria.task import Task
from tests.unit.kasmina.chaos import Sleeper, blueprint, chaos_registry
from tests.unit.tolaria.growing import EAGER, apply, stage_of, until
from tests.unit.tolaria.harness import Clock, Run

NUM_STEPS = 300
TROUBLE = 152
"""The step at which it goes wrong; the newest good state is then of step 140."""
SETTINGS = Settings(
    run=RunSettings(num_steps=NUM_STEPS),
    training=TrainingSettings(device="cpu", deterministic=True),
    checkpoints=CheckpointSettings(every_steps=100, snapshot_every_steps=20, good_after_steps=10),
    budgets=BudgetSettings(window_steps=10, anomaly_window=20, slow_ratio=1e6),
)
WORSE = 1.1
"""At most so many times the validation loss of the undisturbed run, where data or steps are lost for good."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    """A checkpoint directory of one's own."""
    store = CheckpointStore(tmp_path / "checkpoints")
    yield store
    store.release()


def make_task() -> Task:
    torch.manual_seed(0)
    return digits.build(num_steps=NUM_STEPS)


def train(task: Task | None = None, settings: Settings = SETTINGS, **options: Any) -> Run:
    """A run that is set up and has not begun."""
    run = Run(make_task() if task is None else task, settings, **options)
    torch.manual_seed(7)
    return run


def to_the_end(run: Run) -> Run:
    run.trainer.run()
    assert run.view.phase is TrainerPhase.FINISHED, run.view.failure
    return run


@pytest.fixture(scope="module")
def undisturbed() -> Run:
    """The run in which nothing goes wrong."""
    torch.set_num_threads(1)
    run = to_the_end(train())
    assert timelines(run) == []
    return run


def timelines(run: Run) -> list[TimelineEvent]:
    return [event for event in run.take() if isinstance(event, TimelineEvent)]


def emergencies(run: Run) -> list[tuple[str, str]]:
    """(what, emergency id) of everything raised and cleared."""
    found = [e for e in run.take() if isinstance(e, NoticeEvent) and e.kind.startswith("emergency.")]
    return [(event.kind.removeprefix("emergency."), event.attributes["emergency_id"]) for event in found]


def assert_same_end(run: Run, other: Run) -> None:
    """Weights, buffers, optimizer state and the last numbers, bit for bit."""
    assert run.view.global_step == other.view.global_step == NUM_STEPS
    assert (run.view.train_loss, run.view.val_loss) == (other.view.train_loss, other.view.val_loss)
    ours, theirs = run.task, other.task
    for name, tensor in ours.model.state_dict().items():
        assert torch.equal(tensor, theirs.model.state_dict()[name]), name
    for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        for name, value in ours.optimizer.state[p].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs.optimizer.state[q][name])), name


def in_thread(run: Run) -> threading.Thread:
    thread = threading.Thread(target=run.trainer.run, name="trainer under test")
    thread.start()
    return thread


def wait_for(run: Run, condition: Callable[[Any], bool]) -> None:
    for _ in range(30_000):
        if condition(run.view):
            return
        threading.Event().wait(0.001)
    raise AssertionError(f"never came: {run.view}")


# Poisoned gradients


def test_one_poisoned_gradient_is_undone_bit_for_bit(undisturbed: Run) -> None:
    """NaN in one gradient reaches the weights; three lost steps later the run is back, and ends as if never."""
    task = make_task()
    weight = next(task.model.parameters())
    count = 0

    def poison(gradient: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return gradient * math.nan if count == TROUBLE else gradient

    weight.register_hook(poison)  # type: ignore[no-untyped-call]
    run = to_the_end(train(task))
    (timeline,) = timelines(run)
    assert (timeline.timeline, timeline.parent, timeline.cause) == (2, 1, "non_finite")
    assert (timeline.fork_step, timeline.left_step) == (140, TROUBLE + 3)
    assert emergencies(run) == [("raised", "loss"), ("cleared", "loss")]
    assert run.view.emergency_level is EmergencyLevel.UNSPECIFIED
    assert_same_end(run, undisturbed)


# Poisoned data


class PoisonedBatches:
    """The digits' batches, with NaN in those whose number (from the run's beginning) says so."""

    def __init__(self, data: Any, is_bad: Callable[[int], bool]) -> None:
        self.data, self.is_bad = data, is_bad
        self._first = 0
        """Number of the last batch before this epoch."""
        self._position = 0

    def __iter__(self) -> Iterator[Any]:
        for inputs, targets in self.data:
            self._position += 1
            yield (inputs * math.nan if self.is_bad(self._first + self._position) else inputs), targets
        self._first, self._position = self._first + self._position, 0

    def state_dict(self) -> dict[str, Any]:
        return {**self.data.state_dict(), "first": self._first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.data.load_state_dict(state)
        self._first, self._position = state["first"], state["position"]


def poisoned_task(is_bad: Callable[[int], bool]) -> Task:
    task = make_task()
    return replace(task, train_data=PoisonedBatches(task.train_data, is_bad))


def test_one_poisoned_batch_costs_one_step(undisturbed: Run) -> None:
    """Its step is left out, no rollback; the run is conservative until it is healthy."""
    run = to_the_end(train(poisoned_task(lambda number: number == TROUBLE)))
    assert timelines(run) == []
    assert emergencies(run) == [("raised", "loss"), ("cleared", "loss")]
    assert run.view.val_loss < WORSE * undisturbed.view.val_loss


def test_poisoned_batches_in_a_row_are_left_out_for_good(undisturbed: Run) -> None:
    """The first rollback meets them again, the second goes around them."""
    run = to_the_end(train(poisoned_task(lambda number: TROUBLE <= number < TROUBLE + 5)))
    first, second = timelines(run)
    assert [(one.cause, one.fork_step) for one in (first, second)] == [("non_finite", 140)] * 2
    assert [one.left_step for one in (first, second)] == [TROUBLE + 2] * 2
    assert all(torch.isfinite(parameter).all() for parameter in run.task.model.parameters())
    assert run.view.val_loss < WORSE * undisturbed.view.val_loss


def test_the_emergency_checkpoint_takes_no_other_states_place(store: CheckpointStore) -> None:
    """The first lost step saves the state at once; the run still goes back to the newest good one, in memory."""
    run = to_the_end(train(poisoned_task(lambda number: TROUBLE <= number < TROUBLE + 5), store=store))
    assert [one.fork_step for one in timelines(run)] == [140] * 2
    assert "t001-s000000152-emergency" in [kept.manifest.checkpoint_id for kept in store.list()]


def test_endless_poison_halts_with_sound_weights_and_an_operator_decides(undisturbed: Run) -> None:
    """Two rollbacks did not cure it: L4, and the run stands at the safe point and answers."""
    poison = {"is_on": True}
    run = train(poisoned_task(lambda number: poison["is_on"] and number >= TROUBLE))
    thread = in_thread(run)
    wait_for(run, lambda view: view.phase is TrainerPhase.HALTED)
    assert [one.cause for one in timelines(run)] == ["non_finite"] * 2
    (halt,) = [view for view in run.bridge.snapshot().emergencies if view.level is EmergencyLevel.HALT]
    assert halt.emergency_id == "rollback"
    assert "rollback did not cure it" in halt.reason
    assert all(torch.isfinite(parameter).all() for parameter in run.task.model.parameters())
    poison["is_on"] = False
    run.submit(EmergencyCommand(EmergencyLevel.UNSPECIFIED, "rollback"))
    thread.join(60)
    assert run.view.phase is TrainerPhase.FINISHED
    assert run.view.val_loss < WORSE * undisturbed.view.val_loss


def test_poison_before_any_good_state_halts() -> None:
    """There is nothing to go back to."""
    run = train(poisoned_task(lambda number: number >= 5))
    thread = in_thread(run)
    wait_for(run, lambda view: view.phase is TrainerPhase.HALTED)
    assert run.view.global_step == 7
    assert "no good state" in run.bridge.snapshot().emergencies[-1].reason
    run.submit(StopCommand())
    thread.join(60)
    assert all(torch.isfinite(parameter).all() for parameter in run.task.model.parameters())


# Loss spikes


def test_a_loss_spike_by_a_command_is_undone_with_the_command(undisturbed: Run) -> None:
    """A learning rate of a thousand times: the run goes back before it and ends as if it had never been sent."""
    run = train()
    command_id = run.submit(HyperparameterCommand("host", {"lr": 2.5}), at_step=TROUBLE)
    to_the_end(run)
    assert run.outcome(command_id).state is CommandState.APPLIED
    (timeline,) = timelines(run)
    assert timeline.cause == "loss_anomaly"
    assert timeline.fork_step == 140
    assert timeline.left_step < TROUBLE + 10
    assert emergencies(run) == [("raised", "loss"), ("cleared", "loss")]
    assert_same_end(run, undisturbed)


# Weights that are not finite behind a loss that is


class Hidden(nn.Module):
    """The digits' network with a parameter that no loss sees."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out


def test_weights_that_are_not_finite_behind_a_sound_loss_are_found(undisturbed: Run) -> None:
    """No state with them is ever called good, and the run goes back before them."""
    task = make_task()
    model = Hidden(task.model)
    poisoned = replace(task, model=model, train_data=Tripwire(task.train_data, TROUBLE, model.unused))
    run = to_the_end(train(poisoned))
    (timeline,) = timelines(run)
    assert (timeline.cause, timeline.fork_step) == ("poisoned_weights", 140)
    assert torch.isfinite(model.unused).all()
    assert run.view.val_loss == undisturbed.view.val_loss


class Tripwire:
    """Batches as they are; giving out one of them for the first time spoils a parameter."""

    def __init__(self, data: Any, number: int, target: nn.Parameter) -> None:
        self.data, self.number, self.target = data, number, target
        self.num_given = 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            self.num_given += 1
            if self.num_given == self.number:
                self.target.data.fill_(math.inf)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.data.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.data.load_state_dict(state)


# Harmful seeds


GROWING = replace(SETTINGS, growth=replace(EAGER, sites=("block1",), alpha_steps=20))


def plant(run: Run, name: str, **parameters: float) -> int:
    """A seed that goes its way by itself as far as its gates let it."""
    return apply(run, Operation.GERMINATE, site="block1", blueprint_id=name, auto_advance=True, parameters=parameters)


@pytest.mark.parametrize(("name", "cause"), [("exploding", "guard:loss"), ("nan", "guard:non_finite")])
def test_a_seed_that_turns_harmful_while_it_blends_costs_at_most_a_step(
    name: str, cause: str, undisturbed: Run
) -> None:
    """The guard takes it out; no rollback is needed, and the run ends about where it would have ended."""
    run = train(settings=GROWING, registry=chaos_registry()).begin().steps(TROUBLE - 100)
    seed_id = plant(run, name, delay=50)
    run.steps(NUM_STEPS - run.view.global_step)
    run.trainer.safe_point.validate()
    lived = [event for event in run.take() if isinstance(event, TransitionEvent) and event.seed_id == seed_id]
    assert Stage.BLENDING in [event.target for event in lived]
    assert cause in [event.cause for event in lived]
    assert timelines(run) == []
    assert run.view.val_loss < WORSE * undisturbed.view.val_loss


class Bomb(Sleeper):
    """A seed that is good until somebody lights it."""

    is_lit = False

    def __init__(self, shape: tuple[int, ...], delay: int) -> None:
        super().__init__(shape, 1 << 60)

    def forward(self, x: Tensor) -> Tensor:
        return self.good(x) * (math.nan if Bomb.is_lit else 1.0)


def test_a_fossil_that_turns_to_poison_halts_and_the_rollback_before_it_cures(store: CheckpointStore) -> None:
    """No good state is without it, so nothing that the run may do by itself helps; the operator's command does."""
    Bomb.is_lit = False
    registry = standard_registry()
    registry.register(blueprint("bomb", Bomb))
    checkpoints = replace(SETTINGS.checkpoints, every_steps=20, snapshot_every_steps=0, keep=100)
    settings = replace(GROWING, checkpoints=checkpoints, run=RunSettings(num_steps=100_000))
    run = train(settings=settings, registry=registry, store=store).begin().steps(50)
    written(run)
    seed_id = plant(run, "bomb", delay=0)
    until(run, seed_id, Stage.FOSSILIZED)
    run.steps(50)
    Bomb.is_lit = True
    thread = threading.Thread(target=run.steps, args=(100,), name="trainer under test")
    thread.start()
    try:
        wait_for(run, lambda view: view.phase is TrainerPhase.HALTED)
        assert [one.cause for one in timelines(run)] == ["non_finite"] * 2
        back = run.submit(RollbackCommand(before_seed_id=seed_id))
        wait_for(run, lambda view: view.num_grown_parameters == 0)
        run.submit(EmergencyCommand(EmergencyLevel.UNSPECIFIED, "rollback"))
        thread.join(60)
        assert run.outcome(back).state is CommandState.APPLIED
        last = timelines(run)[-1]
        assert (last.cause, last.fork_step, last.removed_seed_ids) == (back, 40, (seed_id,))
        assert math.isfinite(run.view.train_loss)
        assert run.bridge.snapshot().seeds == ()
    finally:
        Bomb.is_lit = False
        run.trainer._keeper.close()


# Memory


class Hungry(nn.Module):
    """The digits' network, which may run out of memory."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.block1, self.block2 = network.block1, network.block2
        self.rest = nn.Sequential(network.pool, network.flatten, network.head)
        self.num_failures = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(x))
        if self.num_failures > 0 and self.training and torch.is_grad_enabled():
            self.num_failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        out: Tensor = self.rest(x)
        return out


def hungry() -> tuple[Run, Hungry]:
    task = make_task()
    model = Hungry(task.model)
    run = train(replace(task, model=model, step_flops=1.0), GROWING, registry=standard_registry())
    return run.begin().steps(20), model


def test_out_of_memory_takes_the_newest_seed_and_no_step() -> None:
    """The step is done again without it, the rest of the run is not touched."""
    run, model = hungry()
    old, new = plant(run, "residual_conv"), plant(run, "residual_conv")
    run.steps(5)
    step = run.trainer.parts.progress.global_step
    model.num_failures = 1
    run.steps(1)
    assert run.trainer.parts.progress.global_step == step + 1
    culled = [event for event in run.take() if isinstance(event, TransitionEvent) and event.target is Stage.CULLED]
    assert [(event.seed_id, event.cause) for event in culled] == [(new, "out_of_memory")]
    (told,) = run.notices("memory.exhausted")
    assert told.attributes["seed_id"] == str(new)
    assert stage_of(run, old) in (Stage.GERMINATED, Stage.TRAINING)
    assert run.trainer.parts.loss_window.num_non_finite == 0
    run.steps(20)


def test_a_step_that_never_fits_halts_with_sound_weights_and_the_operator_goes_on() -> None:
    """L4 after the second failure; the step is left out."""
    run, model = hungry()
    plant(run, "residual_conv")
    model.num_failures = 2
    thread = threading.Thread(target=run.steps, args=(10,), name="trainer under test")
    thread.start()
    wait_for(run, lambda view: view.phase is TrainerPhase.HALTED)
    assert [view.emergency_id for view in run.bridge.snapshot().emergencies if view.level == 4] == ["memory"]
    run.submit(EmergencyCommand(EmergencyLevel.UNSPECIFIED, "memory"))
    thread.join(60)
    assert run.trainer.parts.progress.global_step == 31
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert run.trainer.parts.loss_window.num_non_finite == 0


def test_a_host_that_does_not_fit_by_itself_fails_clearly() -> None:
    """Nothing can be culled: the run has failed, in the words of the catalogue."""
    task = make_task()
    model = Hungry(task.model)
    model.num_failures = 1
    run = train(replace(task, model=model, step_flops=1.0))
    run.trainer.run()
    assert run.view.phase is TrainerPhase.FAILED
    assert "E-DEV-003" in run.view.failure


# Storage


def written(run: Run) -> None:
    """Wait until the writer has done what it was given."""
    assert run.trainer._keeper._writer is not None
    assert run.trainer._keeper._writer.wait_idle(30.0)


def test_checkpoints_that_cannot_be_written_cost_training_nothing(
    undisturbed: Run, store: CheckpointStore, tmp_path: Path
) -> None:
    """L1, then the breaker and L3, a probe at each next one; once the disk works again all is cleared by itself."""
    checkpoints = replace(SETTINGS.checkpoints, every_steps=20)
    run = train(settings=replace(SETTINGS, checkpoints=checkpoints), store=store).begin()
    try:
        run.steps(110)
        written(run)
        directory = store.directory / "run"
        directory.rename(tmp_path / "kept")
        directory.write_text("where a directory should be")
        levels = []
        for _ in range(4):
            run.steps(20)
            written(run)
            run.steps(1)
            levels.append(run.trainer.safety.level)
        assert levels == [EmergencyLevel.NOTICE] * 2 + [EmergencyLevel.CONSERVATIVE] * 2
        assert "checkpoint" in run.bridge.snapshot().emergencies[0].emergency_id
        directory.unlink()
        (tmp_path / "kept").rename(directory)
        run.steps(20)
        written(run)
        run.steps(NUM_STEPS - run.trainer.parts.progress.global_step)
        run.trainer.safe_point.log()
        run.trainer.safe_point.validate()
        assert run.trainer.safety.level is EmergencyLevel.UNSPECIFIED
        assert_same_end(run, undisturbed)
    finally:
        run.trainer._keeper.close()


# An operator's word during a rollback


class GatedStore(CheckpointStore):
    """A directory on a disk that does not answer for as long as its gate is shut."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.gate = threading.Event()
        self.gate.set()

    def get(self, checkpoint_id: str, run_id: str = "") -> StoredCheckpoint:
        assert self.gate.wait(60)
        return super().get(checkpoint_id, run_id)


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[GatedStore]:
    """Released whatever comes."""
    store = GatedStore(tmp_path / "checkpoints")
    yield store
    store.gate.set()
    store.release()


def test_an_emergency_is_acknowledged_while_the_run_goes_back_and_a_late_state_changes_nothing(
    gated: GatedStore,
) -> None:
    """The disk is silent: the emergency is applied at once, the rollback given up in time, what comes late dropped."""
    settings = replace(
        SETTINGS, run=RunSettings(), budgets=replace(SETTINGS.budgets, full_rollback_s=1.0), checkpoints=ON_DEMAND
    )
    run = train(settings=settings, store=gated, monotonic=(clock := Clock()))
    thread = in_thread(run)
    try:
        wait_for(run, lambda view: view.global_step > 20)
        run.submit(CheckpointCommand("before"))
        wait_for(run, lambda _: bool(checkpoints_of(run)))
        (checkpoint,) = checkpoints_of(run)
        gated.gate.clear()
        back = run.submit(RollbackCommand(checkpoint_id=checkpoint.checkpoint_id, tier=RollbackTier.FULL))
        wait_for(run, lambda view: view.phase is TrainerPhase.ROLLING_BACK)
        run.bridge.submit_urgent(Command("urgent", EmergencyCommand(EmergencyLevel.NOTICE, "drill"), "operator"))
        wait_for(run, lambda _: bool(run.bridge.snapshot().emergencies))
        assert run.outcome("urgent").state is CommandState.APPLIED
        assert run.view.phase is TrainerPhase.ROLLING_BACK
        clock.now += 2.0
        wait_for(run, lambda view: view.phase is TrainerPhase.TRAINING)
        refusal = run.outcome(back).refusal
        assert refusal is not None
        assert refusal.reason == "ROLLBACK_DEADLINE"
        step = run.view.global_step
        gated.gate.set()
        wait_for(run, lambda view: view.global_step > step + 100)
        assert timelines(run) == []
        assert run.view.timeline == 1
    finally:
        gated.gate.set()
        run.submit(StopCommand())
        thread.join(60)


ON_DEMAND = CheckpointSettings(every_steps=0, snapshot_every_steps=0)


def checkpoints_of(run: Run) -> list[CheckpointEvent]:
    return [event for event in run.take() if isinstance(event, CheckpointEvent)]
