"""Memory, disk space and time run out: training loses nothing that it need not lose."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from esperd.config.settings import (
    RunSettings,
)
from esperd.kasmina.blueprints.registry import standard_registry
from esperd.leyline.commands import (
    CheckpointCommand,
    Command,
    EmergencyCommand,
    RollbackCommand,
    StopCommand,
)
from esperd.leyline.views import TransitionEvent
from esperd.leyline.vocabulary import CommandState, EmergencyLevel, RollbackTier, Stage, TrainerPhase
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.store import CheckpointStore
from tests.integration.recovery.digits_run import (
    GROWING,
    NUM_STEPS,
    ON_DEMAND,
    SETTINGS,
    assert_same_end,
    checkpoints_of,
    in_thread,
    make_task,
    plant,
    timelines,
    train,
    wait_for,
    written,
)
from tests.unit.tolaria.growing import stage_of
from tests.unit.tolaria.harness import Clock, Run

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
