"""What goes wrong in training is survived: bounded loss, recovery without anybody's help, and evidence in the journal.

A real trainer on the digits task, in this process, so that a gradient, a batch or a weight can be poisoned at one exact
step. Where the cause does not come back, the run ends bit for bit where it would have ended without it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from esperd.leyline.commands import (
    EmergencyCommand,
    HyperparameterCommand,
    StopCommand,
)
from esperd.leyline.vocabulary import CommandState, EmergencyLevel, TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria.task import Task
from tests.integration.recovery.digits_run import (
    TROUBLE,
    WORSE,
    assert_same_end,
    emergencies,
    in_thread,
    make_task,
    timelines,
    to_the_end,
    train,
    wait_for,
)
from tests.unit.tolaria.harness import Run

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
