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


SAVED_OR_FIXED = {
    "Garden": (
        (
            "seeds remains num_germinations germination_of germinated_steps seed_flops judging_flops held "
            "holds_candidates guard prober slots train_units"
        ),
        (
            "host settings registry optimizers report clock random_seed is_clock_trusted host_watch host_parameters "
            "num_host_parameters _offers _machine"
        ),
    ),
    "Seed": (
        (
            "seed_id site plan module blender cost ema alpha ramp amplitude stage stage_entered_step germinated_step "
            "fine_tune auto_advance health gates contributions judgement probe_watch reference reference_loss "
            "first_order_gain num_commit_looks next_look_step num_violations tripped shared_prefix note story "
            "kernel_artifact_id kernel_note refuses_kernels"
        ),
        # The kernel itself is joined again by its id, and the variant follows from the plan and the site.
        "parameters variant attached prewarm_ms",
    ),
    "Slot": (
        "fossils grafted candidates step measures_ratio",
        # The rest lives within one step only, or is the hook itself.
        "site random_seed clock armed override watches passes seed_s _handle",
    ),
    "Site": ("embargoed_until_step embargoed_until_unix_s failures", "path module spec"),
    # The copies are those of the step in progress.
    "Guard": ("watch _unread _buffers", "_prober"),
    "_MovingBuffers": ("_moved _versions", "_known _always _moving _copies"),
    "Prober": ("flops", "_host _slots _random_seed"),
    "StepWork": ("_unread _moved", "_garden _began_s _own_s"),
    # What was asked last is acted on before the safe point ends.
    "Gardener": ("", "_garden _pending"),
    "Nursery": ("", "_garden"),
    "Swapping": ("", "_garden _stock has_changed"),
    "SeedExecutor": ("", "_garden _nursery _gardener _work _swapping"),
}
"""Attributes that a state holds, and those that every start makes anew or that live within one step."""


def test_every_attribute_is_saved_or_known_to_need_no_saving() -> None:
    """A new attribute makes this fail until somebody has decided where it belongs."""
    run = Run()
    run.germinate(auto_advance=True)
    run.steps(3)
    garden = run.executor._garden
    slot = garden.slots["body"]
    parts = [garden, *garden.seeds.values(), slot, slot.site, garden.guard, garden.guard._buffers, garden.prober]
    parts += [run.executor, run.executor._work, run.executor._gardener, run.executor._nursery, run.executor._swapping]
    assert {type(part).__name__ for part in parts} == SAVED_OR_FIXED.keys()
    for part in parts:
        saved, fixed = SAVED_OR_FIXED[type(part).__name__]
        assert set(vars(part)) == {*saved.split(), *fixed.split()}, type(part).__name__


def test_a_state_holds_references_and_plain_values_only() -> None:
    """Nothing is copied on the training thread, and nothing is in it that could not be written to a file."""
    run = Run()
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.BLENDING)
    state = run.executor.state_dict()
    module = state["garden"]["seeds"][0]["module"]
    for name, parameter in run.seed(seed_id).module.named_parameters():
        assert module["parameters"][name].data_ptr() == parameter.data_ptr()
        assert not module["parameters"][name].requires_grad
    assert_plain(state)


def assert_plain(value: object) -> None:
    assert type(value) in (dict, list, tuple, bool, int, float, str, bytes, type(None), torch.Tensor), type(value)
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) in (str, int)
            assert_plain(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            assert_plain(item)


def test_a_blueprint_that_is_gone_is_refused_and_nothing_changes() -> None:
    """The run that loads knows fewer blueprints than the one that saved."""
    run, other = Run(registry=chaos_registry()), Run()
    run.germinate("dropping", parameters={"delay": 0})
    seed_id = other.germinate(site="stem")
    with pytest.raises(ValueError, match="dropping"):
        other.executor.load_state_dict(run.executor.state_dict())
    assert [view.seed_id for view in other.executor.seeds()] == [seed_id]
