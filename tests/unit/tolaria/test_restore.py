"""A state loaded in a new process or in the same one goes on bit for bit, from every stage of every kind of seed."""

import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import AlphaCurve, BlendMode, Isolation, Operation, Stage, TrainingMode
from tests.unit.tolaria.restoring import World, assert_equal

AFTER = 14


def fresh(**options: Any) -> World:
    return World(scheduler=lambda o: lr_scheduler.CosineAnnealingLR(o, 200), **options)


def nothing(world: World) -> None:
    world.steps(3)


def at(
    stage: Stage, steps: int = 2, site: str = "body", blueprint: str = "residual_conv", **germination: Any
) -> Callable[[World], None]:
    """A seed in a stage, some steps after it got there."""

    def prepare(world: World) -> None:
        world.steps(3)
        seed_id = world.germinate(blueprint, site=site, **germination)
        world.grow(seed_id, stage)
        world.steps(steps)

    return prepare


def dropping(world: World) -> None:
    """A seed with dropout and random noise, blending."""
    seed_id = world.germinate("dropping", parameters={"delay": 0})
    world.grow(seed_id, Stage.BLENDING)
    world.steps(3)


def held_alpha(world: World) -> None:
    """A ramp that was given another target."""
    seed_id = world.germinate()
    world.grow(seed_id, Stage.BLENDING)
    world.steps(8)
    world.apply(Operation.SET_ALPHA, seed_id, alpha=AlphaSchedule(AlphaCurve.SIGMOID, 9, 0.4))
    world.steps(3)


def fine_tuned(world: World) -> None:
    seed_id = world.germinate()
    world.grow(seed_id, Stage.PROBATIONARY)
    world.apply(Operation.FINE_TUNE, seed_id)
    world.steps(3)


def fossils(count: int, *, second: str = "body") -> Callable[[World], None]:
    def prepare(world: World) -> None:
        world.grow(world.germinate(), Stage.FOSSILIZED)
        world.steps(2)
        if count > 1:
            world.grow(world.germinate(site=second), Stage.FOSSILIZED)
            world.steps(2)

    return prepare


def fossil_at_another_rate(world: World) -> None:
    """A fossil in a group of its own, because its rate was set by hand."""
    seed_id = world.germinate()
    world.grow(seed_id, Stage.PROBATIONARY)
    world.optimizers.set_values("seed", seed_id, {"lr": 0.003, "weight_decay": 0.1})
    world.grow(seed_id, Stage.FOSSILIZED)
    world.optimizers.set_values("host", 0, {"weight_decay": 0.02})
    world.steps(2)


def retuned(world: World) -> None:
    """The rate of the host and of a live seed changed by hand."""
    seed_id = world.germinate()
    world.grow(seed_id, Stage.TRAINING)
    world.steps(2)
    world.optimizers.set_values("all", 0, {"lr": 0.004, "beta1": 0.8})
    world.optimizers.reset("seed", seed_id)
    world.steps(3)


def culled(steps: int) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        seed_id = world.germinate()
        world.grow(seed_id, Stage.TRAINING)
        world.steps(3)
        world.apply(Operation.CULL, seed_id)
        world.steps(steps)

    return prepare


def rivals(world: World) -> None:
    """Two candidates side by side, one of them random, and a third that waits."""
    for name, parameters in (("residual_conv", {}), ("dropping", {"delay": 0})):
        world.grow(world.germinate(name, parameters=parameters), Stage.TRAINING)
    world.germinate()
    world.steps(3)


def on_a_fossil(world: World) -> None:
    """A seed that blends on top of a fossil, while another trains elsewhere."""
    fossils(1)(world)
    world.grow(world.germinate(site="stem"), Stage.TRAINING)
    world.grow(world.germinate(), Stage.BLENDING)
    world.steps(2)


def about_to_harm(blueprint: str) -> Callable[[World], None]:
    """A seed that has blended in and will do harm within the next steps, which the guard answers."""

    def prepare(world: World) -> None:
        world.steps(25)
        seed_id = world.germinate(blueprint, parameters={"delay": 40})
        world.grow(seed_id, Stage.BLENDING)
        while world.seed(seed_id).module.calls < 36:
            world.step()

    return prepare


SCENES: dict[str, Callable[[World], None]] = {
    "nothing": nothing,
    "germinated": at(Stage.GERMINATED),
    **{f"training {mode.name}": at(Stage.TRAINING, training_mode=mode) for mode in TrainingMode if mode},
    **{
        f"blending {mode.name}": at(Stage.BLENDING, 3, blend_mode=mode)
        for mode in BlendMode
        if mode not in (BlendMode.UNSPECIFIED, BlendMode.CONFIDENCE)
    },
    "blending CONFIDENCE": at(Stage.BLENDING, 3, "head", "residual_mlp", blend_mode=BlendMode.CONFIDENCE),
    "blending strictly": at(Stage.BLENDING, 3, isolation=Isolation.STRICT),
    "blending released": at(Stage.BLENDING, 3, isolation=Isolation.RELEASED),
    "dropping": dropping,
    "held alpha": held_alpha,
    "shadowing": at(Stage.SHADOWING),
    "probationary": at(Stage.PROBATIONARY),
    "fine-tuned": fine_tuned,
    "one fossil": fossils(1),
    "two fossils on one site": fossils(2),
    "two fossils": fossils(2, second="stem"),
    "fossil at another rate": fossil_at_another_rate,
    "retuned": retuned,
    "culled": culled(0),
    "embargoed": culled(2),
    "resetting": culled(5),
    "rivals": rivals,
    "on a fossil": on_a_fossil,
    **{f"about to harm: {name}": about_to_harm(name) for name in ("nan", "exploding", "raises_backward")},
}


@pytest.mark.parametrize("scene", SCENES)
def test_a_new_process_and_the_same_run_go_on_exactly(scene: str) -> None:
    """Losses, weights, optimizers, transitions, evidence: all that the undisturbed run has, whatever happened since."""
    world = fresh()
    SCENES[scene](world)
    saved = world.saved()
    expected = world.follow(AFTER)
    if scene.startswith("about to harm"):
        assert any("guard.tripped" in event for event in expected["events"])
    other = fresh()
    other.steps(1)
    assert_equal(other.load(saved).saved(), saved)
    assert_equal(other.follow(AFTER), expected)
    disturb(world)
    assert_equal(world.load(saved).follow(AFTER), expected)


@pytest.mark.parametrize("half", [False, True], ids=["bf16", "fp16 scalers"])
def test_reduced_precision_goes_on_exactly(half: bool) -> None:
    """Under autocast, and with the scalers of host and seed."""
    scalers = {"new_scaler": lambda: torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=7)} if half else {}
    world = fresh(autocast=True, optimizer_options=scalers)
    fossils(1)(world)
    world.grow(world.germinate(site="stem"), Stage.BLENDING)
    saved = world.saved()
    expected = world.follow(AFTER)
    assert_equal(fresh(autocast=True, optimizer_options=scalers).load(saved).follow(AFTER), expected)
    assert_equal(world.load(saved).follow(AFTER), expected)


def test_what_is_asked_after_a_load_does_what_it_would_have_done() -> None:
    """Rates, resets and commands on live seeds, given to the undisturbed run and to the loaded one."""

    def go_on(world: World) -> dict[str, Any]:
        world.optimizers.set_values("all", 0, {"lr": 0.005, "weight_decay": 0.05})
        world.optimizers.reset("host", 0)
        world.steps(2)
        world.apply(Operation.CULL, world.germinate(site="head", blueprint_id="residual_mlp"))
        world.grow(4, Stage.BLENDING)
        return world.follow(AFTER)

    world = fresh()
    on_a_fossil(world)
    world.apply(Operation.CULL, 3)
    world.steps(6)
    world.grow(world.germinate(), Stage.TRAINING)
    saved = world.saved()
    expected = go_on(world)
    assert_equal(go_on(fresh().load(saved)), expected)
    assert_equal(go_on(world.load(saved)), expected)


def disturb(world: World) -> None:
    """Grow, cull and retune whatever may be."""
    world.optimizers.set_values("host", 0, {"lr": 0.02, "weight_decay": 0.3})
    world.executor.hold("a test")
    world.executor.release()
    for view in world.executor.seeds():
        if view.stage in (Stage.TRAINING, Stage.BLENDING):
            world.apply(Operation.CULL, view.seed_id)
    for site in ("stem", "body"):
        with contextlib.suppress(EsperdError, AssertionError):  # as far as sites and gates let it grow
            world.grow(world.germinate(site=site), Stage.FOSSILIZED, limit=30)
    world.steps(2)


def test_every_stage_can_be_reached_from_every_later_one() -> None:
    """One long life, a state kept in each stage, and every way back."""
    world = fresh()
    states, expected = [], []
    seed_id = world.germinate(auto_advance=False)
    for stage in (
        Stage.GERMINATED,
        Stage.TRAINING,
        Stage.BLENDING,
        Stage.SHADOWING,
        Stage.PROBATIONARY,
        Stage.FOSSILIZED,
    ):
        world.grow(seed_id, stage)
        world.steps(1)
        states.append(world.saved())
        expected.append(world.follow(4))
        world.load(states[-1])
    for later in range(len(states)):
        for earlier in range(later + 1):
            world.load(states[later])
            world.steps(2)
            assert_equal(world.load(states[earlier]).follow(4), expected[earlier])


def test_going_back_leaves_nothing_of_what_had_grown() -> None:
    """Parameters of later fossils and candidates are freed, the host keeps its own tensors, and no hook stays."""
    world = fresh()
    world.steps(2)
    before = world.saved()
    pointers = [parameter.data_ptr() for parameter in world.model.parameters()]
    fossil = world.germinate()
    world.grow(fossil, Stage.FOSSILIZED)
    world.grow(world.germinate(site="stem"), Stage.TRAINING)
    world.steps(3)
    grown = [weakref.ref(p) for seed in world.executor._garden.seeds.values() for p in seed.parameters]
    world.load(before)
    gc.collect()
    assert [reference() for reference in grown] == [None] * len(grown)
    assert [parameter.data_ptr() for parameter in world.model.parameters()] == pointers
    assert not any(module._forward_hooks for module in world.model.modules())
    assert len(world.optimizers.host.param_groups) == 1
    assert len(world.optimizers.host.state) == len(pointers)


def test_a_kept_state_does_not_change_while_the_run_goes_on() -> None:
    """Loading copies: what a rollback may need again is not what is trained."""
    world = fresh()
    on_a_fossil(world)
    saved, twin = world.saved(), world.saved()
    world.load(saved)
    world.steps(20)
    assert_equal(saved, twin)


def test_the_step_of_a_germination_is_known_for_every_seed_of_the_timeline() -> None:
    """Also of culled ones; those that a rollback has undone are unknown again."""
    world = fresh()
    world.steps(2)
    first = world.germinate()
    world.step()
    world.apply(Operation.CULL, first)
    before = world.saved()
    world.steps(12)
    second = world.germinate()
    assert (world.executor.germinated_step(first), world.executor.germinated_step(second)) == (2, 15)
    world.load(before)
    assert world.executor.germinated_step(first) == 2
    with pytest.raises(EsperdError, match="no seed"):
        world.executor.germinated_step(second)


def test_saving_changes_nothing() -> None:
    """A run that is saved at every step is the run that is never saved."""
    one, other = fresh(), fresh()
    for world in (one, other):
        world.grow(world.germinate(), Stage.TRAINING)
    for _ in range(70):
        one.saved()
        one.step()
        other.step()
    one.saved()
    for world in (one, other):
        world.grow(1, Stage.BLENDING)
    assert_equal(one.follow(AFTER), other.follow(AFTER))
