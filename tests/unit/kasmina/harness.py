"""A small trainer for the tests: real torch optimizers behind SeedOptimizers, a real host, the loop in one screen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from esperd.config.settings import GrowthSettings
from esperd.kasmina.blueprints.registry import BlueprintRegistry, standard_registry
from esperd.kasmina.executor import SeedExecutor
from esperd.kasmina.ports import Attribution, Batch, Host, StepAdvice
from esperd.leyline.commands import SeedCommand
from esperd.leyline.views import NoticeEvent, SeedView, TransitionEvent
from esperd.leyline.vocabulary import Operation, Stage

torch.set_num_threads(1)  # tiny hosts: threads only fight each other

QUICK = GrowthSettings(
    min_training_steps=5,
    max_training_steps=200,
    max_dwell_steps=300,
    alpha_steps=5,
    embargo_steps=10,
    probe_units=64,
    probe_every_steps=2,
    max_seed_flops_ratio=1e6,
    max_parameter_ratio=1e6,
    seed_warmup_steps=0,
    isolation_check_every_steps=7,
    probe_budget=1e9,
)


class TorchOptimizers:
    """One Adam for the host, one for each seed."""

    def __init__(self, model: nn.Module, lr: float = 1e-2) -> None:
        self.lr = lr
        self.model = model
        self.host = torch.optim.AdamW(model.parameters(), lr=lr)
        self.seeds: dict[int, torch.optim.Optimizer] = {}

    def create_seed(self, seed_id: int, parameters: Sequence[nn.Parameter]) -> None:
        self.seeds[seed_id] = torch.optim.AdamW(list(parameters), lr=self.lr)

    def step_seed(self, seed_id: int, loss: Tensor | None, alpha: float | None = None) -> float | Tensor:
        optimizer = self.seeds[seed_id]
        parameters = optimizer.param_groups[0]["params"]
        if loss is not None:
            torch.autograd.backward(loss, inputs=list(parameters))
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if torch.isfinite(norm):
            nn.utils.clip_grads_with_norm_(parameters, 1.0, norm)
            optimizer.step()
        optimizer.zero_grad()
        return norm

    def zero_seed(self, seed_id: int) -> None:
        self.seeds[seed_id].zero_grad()

    def drop_seed(self, seed_id: int) -> None:
        del self.seeds[seed_id]

    def merge_seed(self, seed_id: int) -> None:
        optimizer = self.seeds.pop(seed_id)
        self.host.add_param_group({"params": optimizer.param_groups[0]["params"], "lr": self.lr})
        for parameter, state in optimizer.state.items():
            self.host.state[parameter] = state

    def replace_seeds(
        self, live: Mapping[int, Sequence[nn.Parameter]], merged: Mapping[int, Sequence[nn.Parameter]]
    ) -> None:
        for group in self.host.param_groups[1:]:
            for parameter in group["params"]:
                self.host.state.pop(parameter, None)
        del self.host.param_groups[1:]
        self.seeds.clear()
        for seed_id, parameters in live.items():
            self.create_seed(seed_id, parameters)
        for parameters in merged.values():
            self.host.add_param_group({"params": list(parameters), "lr": self.lr})

    def owned_by(self, seed_id: int) -> tuple[nn.Parameter, ...]:
        return tuple(self.seeds[seed_id].param_groups[0]["params"])

    def learning_rate(self, seed_id: int) -> float:
        return self.lr


class ConvHost(nn.Module):
    """Convolution, BatchNorm, dropout: everything that breaks a careless isolation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 6, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.body(x))
        return self.head(self.drop(x.mean(dim=(2, 3))))


@dataclass
class Clock:
    """Time that tests move."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Data:
    """Learnable images: the class is the quadrant that is bright, with noise."""

    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(5))

    def draw(self, count: int) -> Batch:
        targets = torch.randint(0, 3, (count,), generator=self.generator)
        x = 0.7 * torch.randn(count, 1, 6, 6, generator=self.generator)
        for index, target in enumerate(targets.tolist()):
            x[index, 0, 3 * (target // 2) : 3 * (target // 2) + 3, 3 * (target % 2) : 3 * (target % 2) + 3] += 1.0
        return x, targets


class Run:
    """A training run that can be asked everything."""

    def __init__(
        self,
        *,
        model: nn.Module | None = None,
        settings: GrowthSettings = QUICK,
        registry: BlueprintRegistry | None = None,
        sites: Sequence[str] = ("stem", "body"),
        autocast: bool = False,
        clip: float = 1.0,
        random_seed: int = 3,
        batch_size: int = 16,
        data: Any = None,
        probe_data: Callable[[int], Sequence[Batch]] | None = None,
        make_optimizers: Callable[[nn.Module], Any] = TorchOptimizers,
        clock: Any = None,
        **executor_options: Any,
    ) -> None:
        torch.manual_seed(random_seed)
        self.model = model if model is not None else ConvHost()
        self.optimizers = make_optimizers(self.model)
        self.autocast, self.clip, self.batch_size = autocast, clip, batch_size
        self.rng = torch.get_rng_state()
        self.data = data or Data()
        self.clock = clock or Clock()
        self.events: list[TransitionEvent | NoticeEvent] = []
        self.step_number = 0
        self.losses: list[Tensor] = []
        self.advices: list[StepAdvice] = []
        held_out = self.held_out = Data(torch.Generator().manual_seed(9))
        sample = Data(torch.Generator().manual_seed(11)).draw(8)
        self.host = Host(
            model=self.model,
            device=torch.device("cpu"),
            forward=self.forward,
            loss=nn.functional.cross_entropy,
            unit_losses=lambda out, y: nn.functional.cross_entropy(out.float(), y, reduction="none"),
            probe_batches=probe_data or (lambda num_units: [held_out.draw(num_units)]),
            sample_inputs=lambda: sample,
            step_flops=lambda: 1e6,
        )
        self.executor = SeedExecutor(
            host=self.host,
            site_patterns=sites,
            settings=settings,
            registry=registry or standard_registry(),
            optimizers=self.optimizers,
            report=self.events.append,
            clock=self.clock,
            random_seed=random_seed,
            **executor_options,
        )

    def forward(self, inputs: Any) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            return self.model(inputs)

    @contextmanager
    def world(self) -> Iterator[None]:
        """The process's generator as if this run were alone in it, so that two runs may take turns."""
        torch.set_rng_state(self.rng)
        yield
        self.rng = torch.get_rng_state()

    def step(self) -> None:
        """One optimizer step as the trainer makes it."""
        with self.world():
            self._step()

    def _step(self) -> None:
        self.step_number += 1
        step, executor = self.step_number, self.executor
        batch = self.data.draw(self.batch_size)
        active = executor.active
        if active:
            executor.before_step(step)
        self.model.train()
        loss = self.host.loss(self.host.forward(batch[0]), batch[1])
        self.backward_host(loss)
        advice = executor.after_backward(step, batch, loss) if active else StepAdvice.STEP
        self.advices.append(advice)
        self.update_host(advice)
        self.losses.append(loss.detach())
        if active:
            executor.after_step(step)
        else:
            executor.tick_idle(step)

    def backward_host(self, loss: Tensor) -> None:
        loss.backward()

    def update_host(self, advice: StepAdvice) -> None:
        if advice is StepAdvice.STEP:
            if self.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizers.host.step()
        self.optimizers.host.zero_grad()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def until(self, seed_id: int, stage: Stage, limit: int = 400) -> None:
        """Step until the seed is in a stage."""
        for _ in range(limit):
            if self.stage(seed_id) is stage:
                return
            self.step()
        raise AssertionError(f"seed {seed_id} is {self.stage(seed_id)}, not {stage.name}: {self.tale()}")

    def apply(self, operation: Operation, seed_id: int = 0, **fields: Any) -> int:
        command = SeedCommand(operation, seed_id=seed_id, **fields)
        with self.world():
            return self.executor.apply(command, self.step_number, Attribution("c-1", "tester"))

    def germinate(self, blueprint_id: str = "residual_conv", site: str = "body", **fields: Any) -> int:
        return self.apply(Operation.GERMINATE, site=site, blueprint_id=blueprint_id, **fields)

    def seed(self, seed_id: int) -> Any:
        """The executor's own seed, for looking inside."""
        return self.executor._garden.seeds[seed_id]

    def view(self, seed_id: int) -> SeedView | None:
        return next((view for view in self.executor.seeds() if view.seed_id == seed_id), None)

    def stage(self, seed_id: int) -> Stage:
        view = self.view(seed_id)
        return view.stage if view is not None else Stage.DORMANT

    def transitions(self, seed_id: int) -> list[TransitionEvent]:
        return [e for e in self.events if isinstance(e, TransitionEvent) and e.seed_id == seed_id]

    def notices(self, kind: str) -> list[NoticeEvent]:
        return [e for e in self.events if isinstance(e, NoticeEvent) and e.kind == kind]

    def tale(self) -> str:
        return "; ".join(
            f"{e.target.name}@{e.global_step} {e.cause}"
            if isinstance(e, TransitionEvent)
            else f"{e.kind}: {e.message} {dict(e.attributes)}"
            for e in self.events[-6:]
        )

    def fingerprint(self) -> dict[str, Tensor]:
        """Everything of the host that must not move: weights, buffers, optimizer state, the global generator."""
        found = {f"model.{name}": tensor.clone() for name, tensor in self.model.state_dict().items()}
        for index, parameter in enumerate(self.model.parameters()):
            for name, value in self.optimizers.host.state.get(parameter, {}).items():
                found[f"optimizer.{index}.{name}"] = torch.as_tensor(value).clone()
        found["rng"] = self.rng.clone()
        found["losses"] = torch.stack(self.losses) if self.losses else torch.zeros(0)
        return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def quick(**changes: Any) -> GrowthSettings:
    """The quick settings with some changed."""
    return replace(QUICK, **changes)
