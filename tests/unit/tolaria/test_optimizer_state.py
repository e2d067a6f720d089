"""Optimizers, schedules and scalers come back bit for bit, in a new process and in the running one."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from esperd.config.settings import GrowthSettings
from esperd.leyline.errors import EsperdError
from esperd.tolaria.optimizers import Optimizers
from esperd.tolaria.state_tree import BufferPool, capture, rebuild
from tests.unit.tolaria.restoring import assert_equal
from tests.unit.tolaria.test_optimizers import SCHEDULES

MakeOptimizer = Callable[..., torch.optim.Optimizer]

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "AdamW": torch.optim.AdamW,
    "Adam amsgrad": lambda params, lr: torch.optim.Adam(params, lr, amsgrad=True),
    "Adam fused": lambda params, lr: torch.optim.Adam(params, lr, fused=True),
    "Adam tensor rate": lambda params, lr: torch.optim.Adam(params, torch.tensor(lr), foreach=False),
    "SGD": torch.optim.SGD,
    "SGD momentum": lambda params, lr: torch.optim.SGD(params, lr, momentum=0.9, nesterov=True),
    "RMSprop": lambda params, lr: torch.optim.RMSprop(params, lr, momentum=0.5, centered=True),
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adagrad": torch.optim.Adagrad,
    "Adafactor": torch.optim.Adafactor,
    "Rprop": torch.optim.Rprop,
    "ASGD": torch.optim.ASGD,
}


class Rig:
    """A host with two groups, two seeds that come and go, and the way to save and load all of it."""

    def __init__(
        self,
        make_optimizer: MakeOptimizer = torch.optim.AdamW,
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
        *,
        ratio: float = 1.0,
        named: bool = False,
        **options: Any,
    ) -> None:
        torch.manual_seed(0)
        self.host = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 3))
        self.host.to(memory_format=torch.channels_last)
        self.seeds: dict[int, nn.Linear] = {}
        members: Any = list(self.host.named_parameters()) if named else list(self.host.parameters())
        optimizer = make_optimizer(members, lr=0.05)
        growth = GrowthSettings(seed_warmup_steps=3, seed_lr_ratio=ratio)
        schedule = None if scheduler is None else scheduler(optimizer)
        self.optimizers = Optimizers(optimizer, schedule, growth, clip_grad_norm=1.0, **options)
        self.merged: list[int] = []
        self.count = 0

    def seed(self, seed_id: int) -> None:
        torch.manual_seed(seed_id)
        self.seeds[seed_id] = nn.Linear(3, 3)
        self.optimizers.create_seed(seed_id, list(self.seeds[seed_id].parameters()))

    def merge(self, seed_id: int) -> None:
        self.optimizers.merge_seed(seed_id)
        self.merged.append(seed_id)

    def cull(self, seed_id: int) -> None:
        self.optimizers.drop_seed(seed_id)
        del self.seeds[seed_id]

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.count += 1
            x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(self.count))
            out = self.host(x.contiguous(memory_format=torch.channels_last))
            for seed_id in self.merged:
                out = out + self.seeds[seed_id](out)
            self.optimizers.backward_host(out.square().mean())
            for seed_id in self.seeds.keys() - set(self.merged):
                self.optimizers.step_seed(seed_id, self.seeds[seed_id](out.detach()).square().mean())
            self.optimizers.step_host()
            self.optimizers.note_validation(1.0)

    def saved(self) -> dict[str, Any]:
        tree = {
            "optimizers": self.optimizers.state_dict(),
            "modules": {seed_id: dict(seed.state_dict()) for seed_id, seed in self.seeds.items()},
            "host": dict(self.host.state_dict()),
            "merged": list(self.merged),
            "count": self.count,
        }
        return rebuild(capture(tree, BufferPool(torch.device("cpu"))))

    def load(self, tree: dict[str, Any]) -> "Rig":
        self.host.load_state_dict(tree["host"])
        self.seeds = {seed_id: nn.Linear(3, 3) for seed_id in tree["modules"]}
        for seed_id, state in tree["modules"].items():
            self.seeds[seed_id].load_state_dict(state)
        self.merged, self.count = list(tree["merged"]), tree["count"]
        parameters = {seed_id: list(seed.parameters()) for seed_id, seed in self.seeds.items()}
        self.optimizers.replace_seeds(
            {seed_id: held for seed_id, held in parameters.items() if seed_id not in self.merged},
            {seed_id: held for seed_id, held in parameters.items() if seed_id in self.merged},
        )
        self.optimizers.load_state_dict(tree["optimizers"])
        return self


def lived(make: Callable[[], Rig]) -> Rig:
    """One fossil, one live seed, some steps."""
    rig = make()
    rig.steps(3)
    rig.seed(1)
    rig.steps(2)
    rig.merge(1)
    rig.seed(2)
    rig.steps(2)
    return rig


def assert_goes_on(make: Callable[[], Rig]) -> None:
    """A new object and the disturbed old one follow the undisturbed one, whatever had happened before."""
    rig = lived(make)
    saved = rig.saved()
    kept = copy.deepcopy(saved)
    rig.steps(5)
    expected = rig.saved()
    other = make().load(saved)
    other.steps(5)
    assert_equal(other.saved(), expected)
    rig.merge(2)
    rig.seed(3)
    rig.steps(4)
    rig.load(saved)
    rig.steps(5)
    assert_equal(rig.saved(), expected)
    assert_equal(saved, kept)
    bare = make()
    bare.steps(2)
    first = bare.saved()
    bare.steps(5)
    expected = bare.saved()
    rig.load(first)
    assert len(rig.optimizers.host.param_groups) == 1
    rig.steps(5)
    assert_equal(rig.saved(), expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_exactly(name: str) -> None:
    """State, options and the order of parameters, with fossils in the host's groups."""
    assert_goes_on(lambda: Rig(OPTIMIZERS[name]))


@pytest.mark.parametrize("ratio", [1.0, 0.5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_goes_on_exactly(name: str, ratio: float) -> None:
    """Its numbers and its lists for each group, those of fossils with a group of their own too."""
    make_optimizer = OPTIMIZERS["SGD momentum"] if name == "cyclic_own" else torch.optim.AdamW
    assert_goes_on(lambda: Rig(make_optimizer, SCHEDULES[name], ratio=ratio))


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_groups_with_names_take_fossils_too(ratio: float) -> None:
    """An optimizer that was given named parameters."""
    assert_goes_on(lambda: Rig(ratio=ratio, named=True))


def test_scalers_go_on_exactly() -> None:
    """The host's scale and that of each seed, after an overflow."""

    def make() -> Rig:
        return Rig(new_scaler=lambda: torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3))

    assert_goes_on(make)
    rig = lived(make)
    before = rig.saved()
    rig.steps(6)
    assert rig.saved()["optimizers"]["scaler"] != before["optimizers"]["scaler"]


def test_changes_by_command_survive() -> None:
    """A rate set by hand, and values that split a fossil's group from the host's, are neither lost nor decided anew."""
    rig = lived(lambda: Rig(scheduler=SCHEDULES["cosine"]))
    rig.optimizers.set_values("seed", 2, {"weight_decay": 0.3, "lr": 0.01})
    rig.merge(2)
    rig.optimizers.set_values("host", 0, {"weight_decay": 0.3, "lr": 0.02})
    rig.steps(1)
    saved = rig.saved()
    assert len(rig.optimizers.host.param_groups) == 2  # they look alike by now, and stay apart all the same
    rig.steps(4)
    expected = rig.saved()
    other = Rig(scheduler=SCHEDULES["cosine"]).load(saved)
    assert other.optimizers.views() == Rig(scheduler=SCHEDULES["cosine"]).load(saved).optimizers.views()
    other.steps(4)
    assert_equal(other.saved(), expected)


def test_state_keeps_the_layout_of_its_parameter() -> None:
    """channels_last moments stay channels_last, so that foreach kernels take the same way."""
    rig = lived(Rig)
    weight = rig.host[0].weight
    strides = rig.optimizers.host.state[weight]["exp_avg"].stride()
    assert strides == weight.stride()
    assert not rig.optimizers.host.state[weight]["exp_avg"].is_contiguous()
    other = Rig().load(rig.saved())
    assert other.optimizers.host.state[other.host[0].weight]["exp_avg"].stride() == strides


def test_state_keeps_its_own_number_format() -> None:
    """Moments in float32 for weights in bfloat16 are not rounded on the way."""

    class Master(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        sum_ = self.state[p].setdefault("sum", torch.zeros(p.shape, dtype=torch.float32))
                        sum_.add_(p.grad.float(), alpha=1.0001)

    def make() -> tuple[Optimizers, nn.Linear]:
        torch.manual_seed(0)
        host = nn.Linear(3, 3, dtype=torch.bfloat16)
        return Optimizers(Master(host.parameters(), lr=0.1), None, GrowthSettings()), host

    optimizers, host = make()
    optimizers.backward_host(host(torch.ones(2, 3, dtype=torch.bfloat16)).square().mean())
    optimizers.step_host()
    saved = copy.deepcopy(optimizers.state_dict())
    other, twin = make()
    other.load_state_dict(saved)
    restored = other.host.state[twin.weight]["sum"]
    assert restored.dtype is torch.float32
    assert torch.equal(restored, optimizers.host.state[host.weight]["sum"])


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    """Other seeds, other parameters, another scaler."""
    rig = lived(Rig)
    saved = rig.saved()["optimizers"]
    other = Rig()
    before = other.saved()
    with pytest.raises(ValueError, match="seeds"):
        other.optimizers.load_state_dict(saved)
    other.optimizers.replace_seeds({2: list(nn.Linear(3, 3).parameters())}, {})
    with pytest.raises(ValueError, match="parameters that are trained"):
        other.optimizers.load_state_dict(saved)
    other.optimizers.replace_seeds({}, {})
    assert_equal(other.saved(), before)
    scaled = Rig(new_scaler=lambda: torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match="scaler"):
        scaled.optimizers.load_state_dict(before["optimizers"])
    with pytest.raises(ValueError, match="schedule"):
        Rig(scheduler=SCHEDULES["step"]).optimizers.load_state_dict(before["optimizers"])


def test_a_scheduler_without_a_state_cannot_be_saved() -> None:
    """And that is said, rather than left to an attribute error."""

    class Bare:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

        def step(self) -> None:
            pass

    with pytest.raises(EsperdError, match="no state_dict") as refused:
        Rig(scheduler=Bare).optimizers.state_dict()
    assert refused.value.reason == "CHECKPOINT_UNSAVABLE"


def test_every_scheduler_of_torch_is_tried() -> None:
    """A new one in a later torch shows up here."""
    tried = {
        type(SCHEDULES[name](torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)))
        for name in SCHEDULES
    }
    known = {
        kind
        for kind in vars(lr_scheduler).values()
        if isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau)
    }
    assert {kind.__name__ for kind in known - tried} <= {"LRScheduler", "_LRScheduler"}
