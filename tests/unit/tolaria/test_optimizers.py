"""The two-optimizer pattern: who owns which parameter, at what rate, and how a seed joins the host."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from esperd.config.settings import GrowthSettings
from esperd.leyline.errors import EsperdError
from esperd.tolaria.optimizers import Optimizers, OwnershipError

GROWTH = GrowthSettings(seed_warmup_steps=4, seed_clip_grad_norm=1.0)


def make(
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    growth: GrowthSettings = GROWTH,
    make_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    **options: Any,
) -> tuple[Optimizers, nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    host, seed = nn.Linear(3, 3), nn.Linear(3, 3)
    optimizer = make_optimizer(host.parameters(), lr=0.1)
    optimizers = Optimizers(optimizer, None if scheduler is None else scheduler(optimizer), growth, **options)
    return optimizers, host, seed


def train(optimizers: Optimizers, host: nn.Module, count: int = 1) -> None:
    for _ in range(count):
        optimizers.backward_host(host(torch.ones(2, 3)).square().mean())
        optimizers.step_host()


def train_seed(optimizers: Optimizers, seed: nn.Module, scale: float = 1.0, alpha: float | None = None) -> float:
    return optimizers.step_seed(1, seed(torch.ones(2, 3)).square().mean() * scale, alpha)


def test_a_seed_has_an_optimizer_of_the_hosts_class_and_its_own_warm_up():
    """Its rate follows the host's current one, rising over its first steps."""
    optimizers, host, seed = make(lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.5**step))
    optimizers.create_seed(1, list(seed.parameters()))
    assert optimizers.learning_rate(1) == pytest.approx(0.1 / 4)
    train_seed(optimizers, seed)
    assert optimizers.learning_rate(1) == pytest.approx(0.1 * 2 / 4)
    train(optimizers, host)
    assert optimizers.learning_rate(1) == pytest.approx(0.05 * 2 / 4)
    for _ in range(9):
        train_seed(optimizers, seed)
    assert optimizers.learning_rate(1) == pytest.approx(0.05)
    assert [view.optimizer_type for view in optimizers.views()] == ["AdamW", "AdamW"]


def test_a_seeds_step_moves_the_seed_alone():
    """The host's weights and gradients are untouched, and the seed's gradients are cleared."""
    optimizers, host, seed = make()
    optimizers.create_seed(1, list(seed.parameters()))
    before = [p.clone() for p in host.parameters()], [p.clone() for p in seed.parameters()]
    train_seed(optimizers, seed)
    assert all(map(torch.equal, host.parameters(), before[0]))
    assert not any(map(torch.equal, seed.parameters(), before[1]))
    assert all(p.grad is None for p in (*host.parameters(), *seed.parameters()))


def test_a_seed_is_clipped_by_its_own_norm():
    """The norm before clipping is reported; the step is that of a gradient of the limit's length."""
    optimizers, _, seed = make(make_optimizer=torch.optim.SGD, growth=GrowthSettings(seed_warmup_steps=0))
    optimizers.create_seed(1, list(seed.parameters()))
    before = [p.clone() for p in seed.parameters()]
    assert train_seed(optimizers, seed, scale=1000.0) > 10
    moved = math.sqrt(sum((p - q).square().sum().item() for p, q in zip(seed.parameters(), before, strict=True)))
    assert moved == pytest.approx(0.1 * 1.0, rel=1e-3)


def test_the_adaptive_clip_is_tightest_away_from_the_middle():
    """clip = 0.1 / (1 + 100 (alpha - 0.5)^2) while the seed blends."""
    growth = GrowthSettings(seed_warmup_steps=0, adaptive_clip=True)
    for alpha in (0.5, 0.9):
        optimizers, _, seed = make(make_optimizer=torch.optim.SGD, growth=growth)
        optimizers.create_seed(1, list(seed.parameters()))
        before = [p.clone() for p in seed.parameters()]
        train_seed(optimizers, seed, scale=1000.0, alpha=alpha)
        moved = math.sqrt(sum((p - q).square().sum().item() for p, q in zip(seed.parameters(), before, strict=True)))
        assert moved == pytest.approx(0.1 * 0.1 / (1 + 100 * (alpha - 0.5) ** 2), rel=1e-3)


def test_a_non_finite_gradient_skips_the_seeds_step():
    """The weights and the optimizer's state stay finite; the norm tells."""
    optimizers, _, seed = make()
    optimizers.create_seed(1, list(seed.parameters()))
    before = [p.clone() for p in seed.parameters()]
    assert not math.isfinite(train_seed(optimizers, seed, scale=math.inf))
    assert all(map(torch.equal, seed.parameters(), before))


def test_a_culled_seed_leaves_nothing():
    """Its optimizer is gone and the host's groups are as before."""
    optimizers, _, seed = make()
    before = optimizers.views()
    optimizers.create_seed(1, list(seed.parameters()))
    optimizers.drop_seed(1)
    assert optimizers.views() == before


def test_a_fossil_joins_the_host_with_its_state():
    """Trained alike it shares the host's group; its moments come with it, and the host's clip covers it."""
    optimizers, host, seed = make(clip_grad_norm=1.0)
    optimizers.create_seed(1, list(seed.parameters()))
    train(optimizers, host)
    train_seed(optimizers, seed)
    moments = optimizers._seeds[1].optimizer.state[seed.weight]["exp_avg"]
    optimizers.merge_seed(1)
    assert len(optimizers.host.param_groups) == 1
    assert optimizers.host.state[seed.weight]["exp_avg"] is moments
    assert {id(p) for p in optimizers._clipped} == {id(p) for p in (*host.parameters(), *seed.parameters())}
    optimizers.check_ownership(seed.parameters())
    train(optimizers, nn.Sequential(host, seed), 3)


class Falling:
    """A schedule of the user's own with numbers in it."""

    def __init__(self) -> None:
        self.largest = 0

    def __call__(self, step: int) -> float:
        self.largest = max(self.largest, step)
        return 0.97**self.largest


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=50),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.05, 0.1, cycle_momentum=False),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.5, total_iters=8),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 20),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, min_lr=[0.001]),
    "multi_step": lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 9]),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.5, total_iters=6),
    "cyclic_own": lambda o: lr_scheduler.CyclicLR(
        o, 0.05, 0.1, step_size_up=3, scale_fn=lambda x: 0.9**x, scale_mode="cycle", cycle_momentum=True
    ),
    "callable": lambda o: lr_scheduler.LambdaLR(o, Falling()),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, total_iters=4), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.5, total_iters=4), lr_scheduler.CosineAnnealingLR(o, 20)], milestones=[4]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_fossil_with_a_rate_of_its_own_follows_every_schedule(name: str):
    """Merged at half the host's rate it stays at half, whatever the schedule does, and nothing breaks."""
    optimizers, host, seed = make(SCHEDULES[name], growth=GrowthSettings(seed_lr_ratio=0.5, seed_warmup_steps=0))
    train(optimizers, host, 3)
    optimizers.create_seed(1, list(seed.parameters()))
    train_seed(optimizers, seed)
    optimizers.merge_seed(1)
    for _ in range(8):
        train(optimizers, nn.Sequential(host, seed))
        optimizers.note_validation(1.0)
        first, second = optimizers.host.param_groups
        assert second["lr"] == pytest.approx(first["lr"] / 2)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "plateau"])
def test_a_rate_set_by_hand_survives_every_schedule(name: str):
    """From the change on, every later rate is what it would have been, times the same factor."""
    changed, host, _ = make(SCHEDULES[name])
    undisturbed, other, _ = make(SCHEDULES[name])
    train(changed, host, 3)
    train(undisturbed, other, 3)
    changed.set_values("host", 0, {"lr": undisturbed.host_learning_rate * 0.5})
    for _ in range(8):
        assert changed.host_learning_rate == pytest.approx(undisturbed.host_learning_rate * 0.5, abs=1e-7)
        train(changed, host)
        train(undisturbed, other)


def test_hyper_parameters_change_live_and_only_within_their_range():
    """All or nothing: one bad value among good ones changes nothing."""
    optimizers, _, seed = make()
    optimizers.create_seed(1, list(seed.parameters()))
    with pytest.raises(EsperdError) as refused:
        optimizers.set_values("all", 0, {"weight_decay": 0.5, "beta1": 1.0})
    assert refused.value.reason == "HYPERPARAMETER_RANGE"
    assert [view.hyperparameters["weight_decay"] for view in optimizers.views()] == [0.01, 0.01]
    optimizers.set_values("all", 0, {"weight_decay": 0.5, "beta1": 0.5, "lr": 0.2})
    for view in optimizers.views():
        assert (view.hyperparameters["weight_decay"], view.hyperparameters["beta1"]) == (0.5, 0.5)
    assert optimizers.host_learning_rate == pytest.approx(0.2)
    assert optimizers.learning_rate(1) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"momentum": 0.5}, "HYPERPARAMETER_UNKNOWN"),
        ({}, "HYPERPARAMETER_UNKNOWN"),
        ({"lr": 0.0}, "HYPERPARAMETER_RANGE"),
        ({"lr": math.nan}, "HYPERPARAMETER_RANGE"),
        ({"weight_decay": -0.1}, "HYPERPARAMETER_RANGE"),
    ],
)
def test_what_cannot_be_set_is_refused(values: dict[str, float], reason: str):
    """Unknown names and values out of range, each with its reason."""
    optimizers, _, _ = make()
    with pytest.raises(EsperdError) as refused:
        optimizers.set_values("host", 0, values)
    assert refused.value.reason == reason


def test_a_momentum_that_the_schedule_cycles_cannot_be_set():
    """It would be undone at the next step, so it is refused instead."""
    optimizers, _, _ = make(SCHEDULES["one_cycle"])
    with pytest.raises(EsperdError, match="cycles it"):
        optimizers.set_values("host", 0, {"beta1": 0.5})


def test_no_parameter_may_be_in_two_groups():
    """Giving a seed a parameter of the host is a fault of ours and raises, with nothing kept."""
    optimizers, host, seed = make()
    with pytest.raises(OwnershipError, match="two groups"):
        optimizers.create_seed(1, [host.weight, seed.weight])
    assert len(optimizers.views()) == 1
    with pytest.raises(OwnershipError, match="no group"):
        optimizers.check_ownership([seed.weight])


def test_tied_weights_are_owned_once():
    """A seed that lists one parameter twice holds it once."""
    optimizers, _, seed = make()
    optimizers.create_seed(1, [seed.weight, seed.weight, seed.bias])
    assert len(optimizers.owned_by(1)) == 2


def test_an_optimizer_that_cannot_be_made_anew_is_a_clear_error():
    """A class with arguments of its own cannot give seeds their optimizer."""

    class Odd(torch.optim.SGD):
        def __init__(self, params: Any, secret: int, **options: Any) -> None:
            super().__init__(params, **options)

    optimizers, _, seed = make(make_optimizer=lambda params, lr: Odd(params, 1, lr=lr))
    with pytest.raises(EsperdError, match="its own defaults"):
        optimizers.create_seed(1, list(seed.parameters()))


def test_fp16_scales_host_and_seed_apart():
    """A seed's overflow lowers its own scale only; the host's step is taken."""
    optimizers, host, seed = make(new_scaler=lambda: torch.amp.GradScaler("cpu", init_scale=1024.0))
    optimizers.create_seed(1, list(seed.parameters()))
    before = host.weight.clone()
    optimizers.backward_host(host(torch.ones(2, 3)).square().mean())
    assert host.weight.grad is not None
    assert host.weight.grad.abs().max() < 100  # unscaled again
    assert not math.isfinite(train_seed(optimizers, seed, scale=math.inf))
    optimizers.step_host()
    assert not torch.equal(host.weight, before)
    assert optimizers._scaler is not None
    assert optimizers._scaler.get_scale() == 1024.0
    assert optimizers._seeds[1].scaler is not None
    assert optimizers._seeds[1].scaler.get_scale() < 1024.0
