"""Who trains which parameter: the host's optimizer, one optimizer for each seed, and the way from one to the other.

Training thread only; the trainer's side of `esperd/kasmina/ports.py`. A parameter is in exactly one group, by identity,
which is checked after every structural change. Knows nothing of sites, stages or gates.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler

from esperd.config.settings import GrowthSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import OptimizerGroupView
from esperd.tolaria import hyperparameters, optimizer_state, schedules
from esperd.tolaria.task import Scheduler


class OwnershipError(RuntimeError):
    """A parameter is in no group or in two: a fault of ours, never a user's."""


@dataclass(slots=True)
class _Seed:
    optimizer: torch.optim.Optimizer
    parameters: tuple[nn.Parameter, ...]
    lr_ratio: float
    warmup_steps: int
    scaler: GradScaler | None
    num_steps: int = 0


class Optimizers:
    """The two-optimizer pattern (design 02): the host's own, and one for each live seed.

    `new_scaler` makes a gradient scaler for fp16, one for the host and one for each seed; None needs none.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None,
        growth: GrowthSettings,
        *,
        clip_grad_norm: float = 0.0,
        new_scaler: Callable[[], GradScaler] | None = None,
    ) -> None:
        self.host = optimizer
        self.scheduler = scheduler
        self._plateau = scheduler if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else None
        self._step_schedule = None if scheduler is None or self._plateau is not None else scheduler.step
        self._growth = growth
        self._clip = clip_grad_norm
        self._new_scaler = new_scaler
        self._scaler = None if new_scaler is None else new_scaler()
        self._seeds: dict[int, _Seed] = {}
        self._first = tuple(self.host_parameters())
        """The host's own parameters, in the order in which the task gave them."""
        self._first_ids = {id(p) for p in self._first}
        self._merged: dict[int, tuple[nn.Parameter, ...]] = {}
        """The parameters of fossilized seeds, which are in the host's optimizer."""
        self._clipped = self.host_parameters()
        self.host_gradient_norm: torch.Tensor | None = None
        """L2 norm of the host's last gradient before it was clipped; None when nothing is clipped."""

    # The host's step

    def backward_host(self, loss: torch.Tensor) -> None:
        """Backward the host's loss; afterwards the host's gradients are unscaled, in fp16 too."""
        if self._scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            return
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # as above
        self._scaler.unscale_(self.host)

    def step_host(self) -> None:
        """Clip, step, advance the schedule and clear the gradients."""
        if self._clip > 0:
            self.host_gradient_norm = nn.utils.clip_grad_norm_(self._clipped, self._clip)
        if self._scaler is None:
            self.host.step()
        else:
            self._scaler.step(self.host)
            self._scaler.update()
        if self._step_schedule is not None:
            self._step_schedule()
        self.host.zero_grad(set_to_none=True)

    def skip_host(self) -> None:
        """Leave this step out: no update, the schedule stands still, gradients cleared."""
        if self._scaler is not None:
            self._scaler.update()
        self.host.zero_grad(set_to_none=True)

    def clear_gradients(self) -> None:
        """Forget every gradient, the host's and the seeds': of a step that could not be done."""
        for optimizer in (self.host, *(seed.optimizer for seed in self._seeds.values())):
            optimizer.zero_grad(set_to_none=True)

    def note_validation(self, loss: float) -> None:
        """Tell a ReduceLROnPlateau the validation loss."""
        if self._plateau is not None:
            self._plateau.step(loss)

    @property
    def host_learning_rate(self) -> float:
        """The current rate of the host's first group."""
        return float(self.host.param_groups[0]["lr"])

    def host_parameters(self) -> list[nn.Parameter]:
        """Everything in the host's optimizer, fossilized seeds included."""
        return [p for group in self.host.param_groups for p in group["params"]]

    # Seeds (esperd.kasmina.ports.SeedOptimizers)

    def create_seed(self, seed_id: int, parameters: Sequence[nn.Parameter]) -> None:
        """See SeedOptimizers. Raises EsperdError TASK_INVALID when the host's optimizer cannot be made anew."""
        unique = tuple({id(p): p for p in parameters}.values())
        self._seeds[seed_id] = _Seed(
            _like(self.host, unique),
            unique,
            self._growth.seed_lr_ratio,
            self._growth.seed_warmup_steps,
            None if self._new_scaler is None else self._new_scaler(),
        )
        try:
            self.check_ownership()
        except OwnershipError:
            del self._seeds[seed_id]
            raise

    def step_seed(self, seed_id: int, loss: torch.Tensor | None, alpha: float | None = None) -> float:
        """See SeedOptimizers."""
        seed = self._seeds[seed_id]
        if loss is not None:
            # To the seed's own parameters and to nothing else, whatever its module may have got hold of.
            scaled = loss if seed.scaler is None else seed.scaler.scale(loss)
            torch.autograd.backward(scaled, inputs=seed.parameters)
        gradients = [p.grad for p in seed.parameters if p.grad is not None]
        scaler = seed.scaler if loss is not None else None
        if scaler is not None:
            scaler.unscale_(seed.optimizer)
        elif self._scaler is not None:
            torch._foreach_mul_(gradients, 1.0 / self._scaler.get_scale())  # they came with the host's backward
        norm = float(nn.utils.get_total_norm(gradients)) if gradients else 0.0
        if math.isfinite(norm):
            self._clip_seed(gradients, norm, alpha)
            seed.optimizer.param_groups[0]["lr"] = self.learning_rate(seed_id)
            if scaler is None:
                seed.optimizer.step()
            else:
                scaler.step(seed.optimizer)
            seed.num_steps += 1
        if scaler is not None:
            scaler.update()
        seed.optimizer.zero_grad(set_to_none=True)
        return norm

    def zero_seed(self, seed_id: int) -> None:
        """See SeedOptimizers."""
        self._seeds[seed_id].optimizer.zero_grad(set_to_none=True)

    def drop_seed(self, seed_id: int) -> None:
        """See SeedOptimizers."""
        self.zero_seed(seed_id)
        del self._seeds[seed_id]
        self.check_ownership()

    def merge_seed(self, seed_id: int) -> None:
        """See SeedOptimizers: into a host group with the same hyper-parameters, else into a group of its own."""
        seed = self._seeds.pop(seed_id)
        group = seed.optimizer.param_groups[0]
        twin = (
            None if seed.lr_ratio != 1.0 else next(filter(lambda g: _is_alike(g, group), self.host.param_groups), None)
        )
        if twin is not None:
            schedules.extend_group(twin, seed.parameters)
        else:
            joining = {key: value for key, value in group.items() if key != "params"}
            schedules.add_group(self.host, self.scheduler, {"params": list(seed.parameters), **joining}, seed.lr_ratio)
        for parameter in seed.parameters:
            if parameter in seed.optimizer.state:
                self.host.state[parameter] = seed.optimizer.state[parameter]
        self._merged[seed_id] = seed.parameters
        self._clipped = self.host_parameters()
        self.check_ownership()

    def replace_seeds(
        self, live: Mapping[int, Sequence[nn.Parameter]], merged: Mapping[int, Sequence[nn.Parameter]]
    ) -> None:
        """See SeedOptimizers: until `load_state_dict` follows, fossils are in no group."""
        optimizer_state.drop_parameters(self.host, self._first)
        self._seeds.clear()
        self._merged = {seed_id: tuple(parameters) for seed_id, parameters in merged.items()}
        for seed_id, parameters in live.items():
            self.create_seed(seed_id, parameters)

    def owned_by(self, seed_id: int) -> tuple[nn.Parameter, ...]:
        """See SeedOptimizers."""
        return tuple(p for group in self._seeds[seed_id].optimizer.param_groups for p in group["params"])

    def learning_rate(self, seed_id: int) -> float:
        """See SeedOptimizers: the host's current rate, times the seed's ratio, times its warm-up."""
        seed = self._seeds[seed_id]
        warmth = min(1.0, (seed.num_steps + 1) / seed.warmup_steps) if seed.warmup_steps > 0 else 1.0
        return self.host_learning_rate * seed.lr_ratio * warmth

    def check_ownership(self, grown: Iterable[nn.Parameter] = ()) -> None:
        """Raise OwnershipError unless every parameter, those of `grown` included, is in exactly one group."""
        seen: set[int] = set()
        for optimizer in (self.host, *(seed.optimizer for seed in self._seeds.values())):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if id(parameter) in seen:
                        raise OwnershipError(f"a parameter of shape {tuple(parameter.shape)} is in two groups")
                    seen.add(id(parameter))
        if not self._first_ids <= seen:
            raise OwnershipError("a parameter of the host has left its optimizer")
        for parameter in grown:
            if id(parameter) not in seen:
                raise OwnershipError(f"a grown parameter of shape {tuple(parameter.shape)} is in no group")

    # Changes by command

    def set_values(self, target: str, seed_id: int, values: dict[str, float]) -> None:
        """Set hyper-parameters of `host`, one `seed` or `all`; they survive the schedule's next step.

        Raises EsperdError OPTIMIZER_TARGET, HYPERPARAMETER_UNKNOWN or HYPERPARAMETER_RANGE; then nothing has changed.
        """
        seeds, with_host = self._targets(target, seed_id)
        for optimizer in ([self.host] if with_host else []) + [seed.optimizer for seed in seeds]:
            hyperparameters.check(target, hyperparameters.read(optimizer.param_groups[0]), values)
        if with_host:
            self._check_host_change(values)
        rest = {name: value for name, value in values.items() if name != "lr"}
        if with_host:
            if "lr" in values:
                schedules.scale_rates(self.host, self.scheduler, values["lr"] / self.host_learning_rate)
            for group in self.host.param_groups:
                hyperparameters.write(group, rest)
        for seed in seeds:
            hyperparameters.write(seed.optimizer.param_groups[0], rest)
            if "lr" in values:
                seed.lr_ratio, seed.warmup_steps = values["lr"] / self.host_learning_rate, 0

    def reset(self, target: str, seed_id: int) -> None:
        """Forget running statistics (momentum, second moments). Raises EsperdError OPTIMIZER_TARGET."""
        seeds, with_host = self._targets(target, seed_id)
        for optimizer in ([self.host] if with_host else []) + [seed.optimizer for seed in seeds]:
            optimizer.state.clear()

    def views(self) -> tuple[OptimizerGroupView, ...]:
        """Every group of every optimizer."""
        owners = [("host", self.host), *((f"seed:{seed_id}", seed.optimizer) for seed_id, seed in self._seeds.items())]
        return tuple(_view(owner, optimizer, group) for owner, optimizer in owners for group in optimizer.param_groups)

    def state_bytes(self) -> int:
        """Memory of all optimizer state."""
        optimizers = (self.host, *(seed.optimizer for seed in self._seeds.values()))
        tensors = (v for o in optimizers for state in o.state.values() for v in state.values() if torch.is_tensor(v))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def state_dict(self) -> dict[str, Any]:
        """Every optimizer with the members of its groups, schedule, scalers; tensors are references to the live ones.

        Raises EsperdError CHECKPOINT_UNSAVABLE for a scheduler of the user's own without a `state_dict`.
        """
        names = self._names()
        return {
            "host": optimizer_state.save(self.host, names),
            "schedule": optimizer_state.save_schedule(self.scheduler),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "seeds": {
                seed_id: {
                    "optimizer": optimizer_state.save(seed.optimizer, names),
                    "scaler": None if seed.scaler is None else seed.scaler.state_dict(),
                    "lr_ratio": seed.lr_ratio,
                    "warmup_steps": seed.warmup_steps,
                    "num_steps": seed.num_steps,
                }
                for seed_id, seed in self._seeds.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, after `replace_seeds` has given the same seeds; tensors are copied.

        Raises ValueError when the state does not fit what is trained now.
        """
        parameters = self._named()
        self._check_fits(state, parameters)
        optimizer_state.load(self.host, self.scheduler, state["host"], parameters)
        optimizer_state.load_schedule(self.scheduler, state["schedule"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        self._seeds = {seed_id: self._seeds[seed_id] for seed_id in state["seeds"]}
        for seed_id, kept in state["seeds"].items():
            seed = self._seeds[seed_id]
            optimizer_state.load(seed.optimizer, None, kept["optimizer"], parameters)
            if seed.scaler is not None:
                seed.scaler.load_state_dict(kept["scaler"])
            seed.lr_ratio, seed.warmup_steps = kept["lr_ratio"], kept["warmup_steps"]
            seed.num_steps = kept["num_steps"]
        self._clipped = self.host_parameters()
        self.check_ownership(p for parameters_ in self._merged.values() for p in parameters_)

    # Inside

    def _named(self) -> dict[optimizer_state.Name, nn.Parameter]:
        """Every parameter by its name in a saved state."""
        owners: list[tuple[str, int, Sequence[nn.Parameter]]] = [("host", 0, self._first)]
        owners += [("seed", seed_id, parameters) for seed_id, parameters in self._merged.items()]
        owners += [("seed", seed_id, seed.parameters) for seed_id, seed in self._seeds.items()]
        return {(kind, seed_id, place): p for kind, seed_id, held in owners for place, p in enumerate(held)}

    def _names(self) -> dict[int, optimizer_state.Name]:
        return {id(parameter): name for name, parameter in self._named().items()}

    def _clip_seed(self, gradients: list[torch.Tensor], norm: float, alpha: float | None) -> None:
        limit = self._growth.seed_clip_grad_norm
        if self._growth.adaptive_clip and alpha is not None:
            limit = 0.1 / (1.0 + 100.0 * (alpha - 0.5) ** 2)
        if limit > 0 and norm > limit:
            torch._foreach_mul_(gradients, limit / (norm + 1e-6))

    def _check_fits(self, state: Mapping[str, Any], parameters: Mapping[optimizer_state.Name, nn.Parameter]) -> None:
        if set(state["seeds"]) != set(self._seeds):
            raise ValueError(
                f"optimizers of seeds {sorted(state['seeds'])} were saved, {sorted(self._seeds)} are there"
            )
        for what, now in (("schedule", self.scheduler), ("scaler", self._scaler)):
            if (now is None) != (state[what] is None):
                raise ValueError(f"a {what} is in use now, or was when the state was saved, but not both")
        seeds = [kept["optimizer"] for kept in state["seeds"].values()]
        saved = [tuple(name) for kept in (state["host"], *seeds) for group in kept["members"] for name in group]
        if sorted(saved) != sorted(parameters):
            different = sorted(set(saved) ^ set(parameters))
            raise ValueError(f"the parameters that are trained are not those that were saved: {different[:5]}")

    def _targets(self, target: str, seed_id: int) -> tuple[list[_Seed], bool]:
        if target == "host":
            return [], True
        if target == "all":
            return list(self._seeds.values()), True
        if target == "seed" and seed_id in self._seeds:
            return [self._seeds[seed_id]], False
        raise EsperdError("OPTIMIZER_TARGET", target=f"seed {seed_id}" if target == "seed" else target or "(none)")

    def _check_host_change(self, values: dict[str, float]) -> None:
        if "lr" in values and self.host_learning_rate <= 0:
            detail = "the schedule holds it at 0 now, so that no base can be computed from it"
            raise EsperdError("HYPERPARAMETER_RANGE", name="lr", value=values["lr"], detail=detail)
        for name in ("momentum", "beta1"):
            if name in values and schedules.cycles_momentum(self.scheduler):
                detail = "the schedule cycles it and would undo the change"
                raise EsperdError("HYPERPARAMETER_RANGE", name=name, value=values[name], detail=detail)


def _like(host: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer of the host's class with the host's defaults."""
    accepted = inspect.signature(type(host)).parameters
    options = {name: value for name, value in host.defaults.items() if name in accepted}
    try:
        return type(host)(list(parameters), **options)
    except (TypeError, ValueError) as error:
        detail = f"its optimizer {type(host).__name__} cannot be made from its own defaults ({error})"
        raise EsperdError("TASK_INVALID", task="of this run", detail=detail) from error


def _is_alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return hyperparameters.read(one) | {"lr": 0.0} == hyperparameters.read(other) | {"lr": 0.0} and all(
        one.get(key) == other.get(key) for key in ("amsgrad", "maximize", "nesterov", "centered", "fused", "foreach")
    )


def _view(owner: str, optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> OptimizerGroupView:
    parameters = group["params"]
    num_parameters = sum(p.numel() for p in parameters)
    known = hyperparameters.read(group)
    return OptimizerGroupView(owner, type(optimizer).__name__, num_parameters, len(parameters), known)
