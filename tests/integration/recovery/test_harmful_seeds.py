"""A seed, or a fossil, that turns to poison: what it costs, and who cures it."""

import math
import threading
from dataclasses import replace

import pytest
from torch import Tensor

from esperd.config.settings import (
    RunSettings,
)
from esperd.kasmina.blueprints.registry import standard_registry
from esperd.leyline.commands import (
    EmergencyCommand,
    RollbackCommand,
)
from esperd.leyline.views import TransitionEvent
from esperd.leyline.vocabulary import CommandState, EmergencyLevel, Stage, TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from tests.integration.recovery.digits_run import (
    GROWING,
    NUM_STEPS,
    SETTINGS,
    TROUBLE,
    WORSE,
    plant,
    timelines,
    train,
    wait_for,
    written,
)
from tests.unit.kasmina.chaos import Sleeper, blueprint, chaos_registry
from tests.unit.tolaria.growing import until
from tests.unit.tolaria.harness import Run

# Harmful seeds


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
