"""While a seed is in GERMINATED or TRAINING the host does not know that it is there."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from esperd.kasmina.slot import Slot
from esperd.leyline.vocabulary import Isolation, Operation, Stage, TrainingMode
from tests.unit.kasmina.chaos import chaos_registry
from tests.unit.kasmina.harness import ConvHost, Run, assert_same, quick

MODES = [TrainingMode.GRADIENT_MATCHING, TrainingMode.SHADOW_FORWARD, TrainingMode.STRAIGHT_THROUGH]
LONG = quick(min_training_steps=1000, max_training_steps=5000)


def alone(steps: int, **options: object) -> Run:
    run = Run(registry=chaos_registry(), **options)  # type: ignore[arg-type]
    run.steps(steps)
    return run


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("blueprint", ["residual_conv", "dropping", "nan", "inf", "exploding"])
def test_training_and_cull_leave_host_bit_identical(blueprint: str, mode: TrainingMode, autocast: bool) -> None:
    """Losses, weights, buffers, optimizer state and RNG equal the never-germinated run, also after a cull."""
    run = Run(registry=chaos_registry(), settings=LONG, autocast=autocast)
    twin = Run(registry=chaos_registry(), settings=LONG, autocast=autocast)
    run.steps(3)
    twin.steps(3)
    parameters = {"delay": 6} if blueprint != "residual_conv" else {}
    if blueprint == "dropping":
        parameters = {"delay": 0}
    seed_id = run.germinate(blueprint, training_mode=mode, parameters=parameters)
    run.step()
    twin.step()
    run.apply(Operation.START_TRAINING, seed_id)
    for _ in range(14):
        run.step()
        twin.step()
        assert_same(run.fingerprint(), twin.fingerprint())
    if run.stage(seed_id) is Stage.TRAINING:
        run.apply(Operation.CULL, seed_id)
    run.steps(5)
    twin.steps(5)
    assert_same(run.fingerprint(), twin.fingerprint())
    assert not any(slot.has_hook for slot in run.executor._garden.slots.values())
    assert not run.optimizers.seeds
    assert not run.model.body._forward_hooks


def test_empty_slots_change_nothing() -> None:
    """With no seed the state_dict keys and outputs are those of the bare model, and no hook is installed."""
    run = Run()
    torch.manual_seed(3)
    bare = ConvHost()
    x = run.host.sample_inputs()[0]
    assert list(run.model.state_dict()) == list(bare.state_dict())
    assert torch.equal(run.model.eval()(x), bare.eval()(x))
    assert not any(module._forward_hooks for module in run.model.modules())
    assert not run.executor.active


def test_construction_and_views_draw_no_random_number() -> None:
    """Neither building the executor nor looking at it moves the global generator."""
    torch.manual_seed(3)
    model = ConvHost()
    before = torch.get_rng_state()
    torch.set_rng_state(before)
    run = Run(model=model)
    torch.set_rng_state(before)
    run.executor.sites()
    run.executor.seeds()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_seed_learns_in_training(mode: TrainingMode) -> None:
    """The seed's weights move in TRAINING, in every mode."""
    run = Run(settings=LONG)
    seed_id = run.germinate(training_mode=mode)
    run.step()
    run.apply(Operation.START_TRAINING, seed_id)
    before = [p.detach().clone() for p in run.seed(seed_id).parameters]
    run.steps(5)
    assert any(not torch.equal(a, b) for a, b in zip(before, run.seed(seed_id).parameters, strict=True))


def test_gradient_matching_lowers_its_loss_and_gains() -> None:
    """Gradient matching makes a seed whose blend is better than none on held-out data."""
    run = Run(settings=LONG)
    seed_id = run.germinate()
    run.step()
    run.apply(Operation.START_TRAINING, seed_id)
    run.steps(60)
    garden = run.executor._garden
    seed = run.seed(seed_id)
    from esperd.kasmina.probes import OFF, Variant

    off, on = garden.prober.losses(
        garden.slots["body"], seed, [OFF, Variant(1.0, 1.0, averaged=True)], run.host.probe_batches(256)
    )
    assert sum(on) < sum(off)


class SkipHost(nn.Module):
    """Downstream takes something from before the site, so no prefix can be shared."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x))
        return self.head((self.body(h) + h).mean(dim=(2, 3)))


def test_prefix_is_shared_only_where_it_changes_nothing() -> None:
    """Doubling at the site is verified at germination against two passes."""
    plain, skipping = Run(), Run(model=SkipHost(), sites=["body"])
    assert plain.seed(plain.germinate()).shared_prefix
    assert not skipping.seed(skipping.germinate()).shared_prefix


class InPlaceHost(SkipHost):
    """A later layer overwrites the activation of the site."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu_(self.one(x))
        return self.head(torch.relu_(self.body(h)).mean(dim=(2, 3)))


class FrozenHost(SkipHost):
    """Nothing upstream of the site needs a gradient."""

    def __init__(self) -> None:
        super().__init__()
        for part in (self.one, self.body):
            part.requires_grad_(False)


@pytest.mark.parametrize("make", [InPlaceHost, FrozenHost, SkipHost])
def test_odd_hosts_are_not_disturbed_and_seeds_learn_there(make: type[nn.Module]) -> None:
    """In-place activations and frozen upstream layers: host bit-identical, the seed gets its gradient, and grafts."""
    torch.manual_seed(1)
    models = make(), make()
    models[1].load_state_dict(models[0].state_dict())
    run, twin = (Run(model=model, sites=["body"]) for model in models)
    seed_id = run.germinate()
    run.steps(4)
    twin.steps(4)
    run.apply(Operation.START_TRAINING, seed_id)
    run.steps(10)
    twin.steps(10)
    assert_same(run.fingerprint(), twin.fingerprint())
    assert any(bool(tensor.abs().sum()) for tensor in run.seed(seed_id).module[-1].parameters())


def test_later_cull_leaves_nothing_reachable() -> None:
    """After a cull from BLENDING no module, parameter or optimizer entry of the seed is left."""
    run = Run(settings=quick(alpha_steps=50))
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.BLENDING)
    run.steps(5)
    seed = run.seed(seed_id)
    left = [weakref.ref(seed), weakref.ref(seed.module), *(weakref.ref(p) for p in seed.parameters)]
    del seed
    run.apply(Operation.CULL, seed_id)
    gc.collect()
    assert [reference() for reference in left if reference() is not None] == []
    assert not run.optimizers.seeds
    run.steps(25)
    assert [event.target for event in run.transitions(seed_id)][-4:] == [
        Stage.CULLED,
        Stage.EMBARGOED,
        Stage.RESETTING,
        Stage.DORMANT,
    ]
    evidence = {item.name: item.value for item in run.transitions(seed_id)[-1].gate.evidence}  # type: ignore[union-attr]
    assert evidence["parameters_reachable"] == 0.0
    assert run.executor.seeds() == ()


@pytest.mark.parametrize("isolation", [Isolation.DEFAULT, Isolation.STRICT, Isolation.RELEASED])
def test_isolation_of_the_blend(isolation: Isolation) -> None:
    """DEFAULT hands the host exactly its own gradient, STRICT none here, RELEASED the seed's Jacobian too."""
    run = Run(settings=quick(alpha_steps=400))
    seed_id = run.germinate(auto_advance=True, isolation=isolation)
    run.until(seed_id, Stage.BLENDING)
    run.steps(2)
    slot: Slot = run.executor._garden.slots["body"]
    seed = run.seed(seed_id)
    seed.set_alpha(0.9)
    slot.arm(99)
    h = torch.randn(8, 6, 6, 6, requires_grad=True)
    out = slot._graft(seed, h * 1.0, True, True)
    g = torch.randn_like(out)
    if isolation is Isolation.STRICT:
        assert not torch.autograd.grad(out, h, g)[0].any()
        return
    (got,) = torch.autograd.grad(out, h, g)
    assert torch.equal(got, g) is (isolation is Isolation.DEFAULT)
