"""The checks of the isolation find what they are for, and cost no device read."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from esperd.kasmina.isolation import HostWatch, differential_probe, owns_exactly
from esperd.kasmina.loss_watch import LossWatch
from esperd.kasmina.slot import Slot
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import Operation, Stage
from tests.unit.kasmina.harness import Run, assert_same, quick

LONG = quick(min_training_steps=1000, max_training_steps=5000, isolation_check_every_steps=10**6)


class Reads(TorchDispatchMode):
    """Counts reads of a scalar from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def training(run: Run) -> int:
    seed_id = run.germinate()
    run.step()
    run.apply(Operation.START_TRAINING, seed_id)
    return seed_id


def test_training_reads_nothing_between_log_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In TRAINING the executor reads no scalar from a tensor in a step; the optimizer's own reads aside."""
    run = Run(settings=LONG)
    training(run)
    run.steps(9)
    with Reads() as reads:
        batch = run.data.draw(16)
        run.executor.before_step(11)
        loss = run.host.loss(run.host.forward(batch[0]), batch[1])
        loss.backward()
        step_seed, own = run.optimizers.step_seed, []

        def counted(*args: Any) -> Any:
            before = reads.count
            norm = step_seed(*args)
            own.append(reads.count - before)
            return norm

        monkeypatch.setattr(run.optimizers, "step_seed", counted)
        before = reads.count
        run.executor.after_backward(11, batch, loss)
        run.executor.after_step(11)
        assert own
        assert reads.count - before == sum(own)


def test_g1_refuses_a_seed_that_depends_on_a_host_weight() -> None:
    """A seed whose output goes through a host parameter is found by the dry backward."""
    run = Run(settings=LONG)
    seed_id = run.germinate()
    weight = run.model.head.weight
    run.seed(seed_id).module.register_forward_hook(lambda _m, _a, out: out + weight.sum())
    run.step()
    with pytest.raises(EsperdError, match="host_parameters_reached"):
        run.apply(Operation.START_TRAINING, seed_id)


def test_blend_is_isolated_even_from_a_seed_that_holds_a_host_weight() -> None:
    """The host's graph ends at the delta: the differential probe finds the host's gradient bit-equal."""
    run = Run(settings=quick(alpha_steps=100))
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.BLENDING)
    run.steps(3)
    weight = run.model.stem.weight
    run.seed(seed_id).module.register_forward_hook(lambda _m, _a, out: out + weight.sum())
    slots = list(run.executor._garden.slots.values())
    same, detail = differential_probe(run.host, slots, slots[1], run.seed(seed_id), run.host.sample_inputs())
    assert same, detail


def test_differential_probe_finds_an_attached_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the isolation taken out on purpose, the probe says so."""
    run = Run(settings=quick(alpha_steps=100))
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.BLENDING)
    run.steps(10)
    run.seed(seed_id).set_alpha(0.9)
    original = Slot._delta

    def attached(self: Slot, seed: Any, h: Tensor, record: Any, learning: bool) -> Tensor:
        d = original(self, seed, h, record, learning)
        return d + 0.5 * (h - h.detach()) if learning else d

    monkeypatch.setattr(Slot, "_delta", attached)
    slots = list(run.executor._garden.slots.values())
    same, detail = differential_probe(run.host, slots, slots[1], run.seed(seed_id), run.host.sample_inputs())
    assert not same
    assert "difference" in detail


def test_differential_probe_leaves_no_trace() -> None:
    """Probing changes neither weights, buffers, gradients nor generators."""
    often = quick(min_training_steps=500, max_training_steps=900, isolation_check_every_steps=2)
    run, twin = Run(settings=often), Run(settings=LONG)
    for one in (run, twin):
        training(one)
        one.steps(12)
    assert_same(run.fingerprint(), twin.fingerprint())


def test_host_watch_sees_writes_to_weights_and_gradients() -> None:
    """Version counters see any write in place; the projection sees what bypasses them."""
    model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    watch = HostWatch(model, 1)
    before = watch.tally()
    assert not watch.was_touched(before, watch.tally())
    assert model.weight.grad is not None
    model.weight.grad.data.mul_(2.0)
    moved = watch.difference(before, watch.tally())
    assert moved is not None
    assert float(moved) > 0.0
    model.weight.grad.add_(1.0)
    assert watch.was_touched(before, watch.tally())


def test_ownership_names_what_is_wrong() -> None:
    """The optimizer must own exactly the seed's parameters, by identity."""
    run = Run(settings=LONG)
    seed = run.seed(run.germinate())
    assert owns_exactly(run.optimizers, seed, run.model.parameters()) == ""
    run.optimizers.seeds[seed.seed_id].add_param_group({"params": [run.model.head.bias]})
    seed.parameters.append(run.model.head.bias)
    run.optimizers.seeds[seed.seed_id] = torch.optim.SGD([run.model.head.bias], lr=0.1)
    assert "host" in owns_exactly(run.optimizers, seed, run.model.parameters())


def test_losses_before_the_blend_are_known_to_the_guard() -> None:
    """Losses of TRAINING are kept unread, and read in one go when a seed begins to blend."""
    run = Run(settings=quick(min_training_steps=30, alpha_steps=100))
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.BLENDING)
    run.step()
    watch: LossWatch = run.executor._garden.guard.watch
    assert watch.num_losses > 20
