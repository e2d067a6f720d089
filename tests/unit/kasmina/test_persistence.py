"""A state taken at any step and loaded into a fresh run goes on bit for bit."""

import copy
import io

import pytest
import torch

from esperd.leyline.vocabulary import Operation, Stage
from tests.unit.kasmina.chaos import chaos_registry
from tests.unit.kasmina.harness import Run, assert_same, quick


def resumed(run: Run, settings: object) -> Run:
    """A fresh run in the state of another, through bytes; optimizers and data as the trainer would restore them."""
    buffer = io.BytesIO()
    torch.save(run.executor.state_dict(), buffer)
    buffer.seek(0)
    other = Run(registry=chaos_registry(), settings=settings)  # type: ignore[arg-type]
    other.model.load_state_dict(copy.deepcopy(run.model.state_dict()))
    other.executor.load_state_dict(torch.load(buffer, weights_only=True))
    other.optimizers.host.load_state_dict(copy.deepcopy(run.optimizers.host.state_dict()))
    for seed_id, optimizer in run.optimizers.seeds.items():
        other.optimizers.seeds[seed_id].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.rng = run.rng.clone()
    other.data.generator.set_state(run.data.generator.get_state())
    other.held_out.generator.set_state(run.held_out.generator.get_state())
    other.step_number = run.step_number
    other.losses = [loss.clone() for loss in run.losses]
    other.clock.now_s = run.clock.now_s
    return other


@pytest.mark.parametrize(
    "stage", [Stage.TRAINING, Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY, Stage.FOSSILIZED, Stage.EMBARGOED]
)
def test_resume_is_exact_in_every_stage(stage: Stage) -> None:
    """Weights, losses, stages, alpha and evidence of the resumed run equal those of the undisturbed one."""
    settings = quick(alpha_steps=12, embargo_steps=15, min_training_steps=40)
    run = Run(registry=chaos_registry(), settings=settings)
    seed_id = run.germinate("dropping", parameters={"delay": 0}, auto_advance=True, site="stem")
    second = run.germinate(auto_advance=True)
    if stage is Stage.EMBARGOED:
        run.steps(8)
        run.apply(Operation.CULL, second)
        run.until(second, stage)
    else:
        run.until(second, stage)
    run.steps(2)
    other = resumed(run, settings)
    assert run.executor.seeds() == other.executor.seeds()
    run.steps(25)
    other.steps(25)
    assert_same(run.fingerprint(), other.fingerprint())
    assert run.executor.seeds() == other.executor.seeds()
    assert run.executor.extra_flops == other.executor.extra_flops
    assert seed_id != second


def test_state_of_another_model_is_refused() -> None:
    """A state that names a site this model has not is refused, and nothing is changed."""
    run, other = Run(), Run(sites=["body"])
    run.germinate(site="stem")
    with pytest.raises(ValueError, match="stem"):
        other.executor.load_state_dict(run.executor.state_dict())
    assert other.executor.seeds() == ()


def test_loading_replaces_what_grows() -> None:
    """Loading an empty state takes live seeds and hooks out."""
    run = Run()
    empty = run.executor.state_dict()
    run.germinate()
    run.executor.load_state_dict(empty)
    assert run.executor.seeds() == ()
    assert not run.optimizers.seeds
    assert not run.model.body._forward_hooks
