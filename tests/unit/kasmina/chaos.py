"""Blueprints that do harm, each in one way, for the gates and the guard to stop."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Bounds, Shape
from esperd.kasmina.blueprints.registry import BlueprintRegistry, standard_registry
from esperd.leyline.vocabulary import BlueprintTier

LEAKED: list[nn.Module] = []
"""Where the leaking blueprint keeps itself alive."""


class Sleeper(nn.Module):
    """A good seed for `delay` passes with gradients, a bad one afterwards."""

    def __init__(self, shape: Shape, delay: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[1], shape[1], 3, padding=1)
        self.out = nn.Conv2d(shape[1], shape[1], 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.delay = delay
        self.calls = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]

    def good(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.conv(x)))

    def bad(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.training:
            self.calls += 1
        return self.bad(x) if self.calls > self.delay or self.delay == 0 else self.good(x)


class Poisoned(Sleeper):
    """Gives NaN."""

    def bad(self, x: Tensor) -> Tensor:
        return self.good(x) * float("nan")


class Infinite(Sleeper):
    """Gives infinities."""

    def bad(self, x: Tensor) -> Tensor:
        return self.good(x) + float("inf")


class Exploding(Sleeper):
    """Gives values far out of proportion."""

    def bad(self, x: Tensor) -> Tensor:
        return self.good(x) + 1e6 * (1 + x.abs())


class Vanishing(Sleeper):
    """Gives nothing and learns nothing."""

    def bad(self, x: Tensor) -> Tensor:
        return self.good(x) * 0.0


class WrongShape(Sleeper):
    """Loses a column."""

    def bad(self, x: Tensor) -> Tensor:
        return self.good(x)[..., :-1]


class WrongDtype(Sleeper):
    """Answers in double precision."""

    def bad(self, x: Tensor) -> Tensor:
        return self.good(x).double()


class RaisesForward(Sleeper):
    """Raises in its forward."""

    def bad(self, x: Tensor) -> Tensor:
        raise RuntimeError("chaos in forward")


class _Bomb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        raise RuntimeError("chaos in backward")


class RaisesBackward(Sleeper):
    """Raises in its backward."""

    def bad(self, x: Tensor) -> Tensor:
        return _Bomb.apply(self.good(x))


class Leaking(Sleeper):
    """Keeps itself alive after it should be gone."""

    def __init__(self, shape: Shape, delay: int) -> None:
        super().__init__(shape, delay)
        LEAKED.append(self)

    def bad(self, x: Tensor) -> Tensor:
        return self.good(x)


class WritesInput(Sleeper):
    """Overwrites what it was given to look at."""

    def bad(self, x: Tensor) -> Tensor:
        x.add_(1.0)
        return self.good(x)


class LateWriter(Sleeper):
    """Overwrites its input once it is trained, which no dry run on fake data sees."""

    def bad(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            x.add_(1.0)
        return self.good(x)


class Dropping(Sleeper):
    """A good seed with dropout and random noise: draws from the global generators."""

    def bad(self, x: Tensor) -> Tensor:
        return self.out(nn.functional.dropout(torch.relu(self.conv(x)), 0.5) + torch.rand_like(x))


class Normed(Sleeper):
    """Has a BatchNorm inside."""

    def __init__(self, shape: Shape, delay: int) -> None:
        super().__init__(shape, delay)
        self.norm = nn.BatchNorm2d(shape[1])

    def bad(self, x: Tensor) -> Tensor:
        return self.good(self.norm(x))


def blueprint(name: str, make: Callable[[Shape, int], nn.Module]) -> BlueprintDescriptor:
    """A descriptor for a module class."""

    def factory(shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
        return make(shape, int(parameters["delay"]))

    return BlueprintDescriptor(
        name, name, "chaos", BlueprintTier.SAFE, 0.0, frozenset({4}), factory, {"delay": Bounds(0, 10**6, 0, True)}
    )


def chaos_registry(slow: Callable[[], None] = lambda: None) -> BlueprintRegistry:
    """The standard blueprints and every harmful one; `slow` is called whenever the slow one runs."""

    class Slow(Sleeper):
        def bad(self, x: Tensor) -> Tensor:
            slow()
            return self.good(x)

    registry = standard_registry()
    kinds: dict[str, Callable[[Shape, int], nn.Module]] = {
        "nan": Poisoned, "inf": Infinite, "exploding": Exploding, "vanishing": Vanishing, "wrong_shape": WrongShape,
        "wrong_dtype": WrongDtype, "raises_forward": RaisesForward, "raises_backward": RaisesBackward,
        "leaking": Leaking, "writes_input": WritesInput, "late_writer": LateWriter,
        "dropping": Dropping, "normed": Normed, "slow": Slow,
    }  # fmt: skip
    for name, make in kinds.items():
        registry.register(blueprint(name, make))
    return registry
