"""A folded model computes exactly what the grown one computes, and shares nothing with it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esperd.kasmina.folding import Fossil
from esperd.leyline.vocabulary import BlendMode, Stage
from tests.unit.kasmina.fossils import EXAMPLES, Grown, example
from tests.unit.kasmina.harness import ConvHost

MODES = [mode for mode in BlendMode if mode is not BlendMode.UNSPECIFIED]


def folded_output(grown: Grown, **options: Any) -> Any:
    with torch.no_grad():
        return grown.executor.fold(**options)(grown.inputs)


@pytest.mark.parametrize("name", EXAMPLES)
def test_fold_equals_the_grown_model(name: str) -> None:
    """Every blueprint in every blend mode at every site, two fossils on each other: bit for bit."""
    grown = example(name)
    bare = grown.output()
    num_cases = 0
    for site, slot in grown.garden.slots.items():
        for descriptor in grown.garden.registry.admissible(slot.site.spec.shape, torch.float32):
            for mode in MODES:
                if mode is BlendMode.CONFIDENCE and not slot.site.spec.yields_logits:
                    continue
                grown.clear()
                grown.plant(site, descriptor.blueprint_id, mode, amplitude=0.5)
                grown.plant(site, descriptor.blueprint_id, BlendMode.BERNOULLI)
                live = grown.output()
                assert torch.equal(folded_output(grown), live), (site, descriptor.blueprint_id, mode)
                assert not torch.equal(live, bare)
                num_cases += 1
    assert num_cases >= 20


def test_fold_without_fossils_is_the_host() -> None:
    """Nothing grown: the folded model is the host, with the host's own keys."""
    grown = example("tabular")
    folded = grown.executor.fold()
    assert torch.equal(folded(grown.inputs), grown.output())
    assert folded.state_dict().keys() == {f"host.{name}" for name in grown.model.state_dict()}


def test_live_seeds_are_no_part_of_it() -> None:
    """The folded model is the host with its fossils, whatever blends on top of them."""
    grown = example("digits")
    grown.plant("block1", "conv1x1", BlendMode.RESIDUAL)
    settled = grown.output()
    grown.graft("block1", "conv1x1", Stage.BLENDING, 0.7)
    grown.graft("block2", "conv1x1", Stage.PROBATIONARY, 1.0)
    assert not torch.equal(grown.output(), settled)
    assert torch.equal(folded_output(grown), settled)
    with grown.executor.without_live_seeds():
        assert torch.equal(grown.output(), settled)


def test_keys_say_what_is_the_host_and_what_was_grown() -> None:
    """The host's keys are its own below `host`, a fossil's are below `seeds` and its id."""
    grown = example("tabular")
    seed = grown.plant("hidden1", "residual_linear", BlendMode.RESIDUAL)
    keys = set(grown.executor.fold().state_dict())
    host = {f"host.{name}" for name in grown.model.state_dict()}
    module = {f"seeds.1.module.{name}" for name in seed.module.state_dict()}
    assert keys == host | module | {"seeds.1.alpha", "seeds.1.blender.cap"}


def test_fold_is_a_copy() -> None:
    """Training on changes the folded model no more, and folding changed nothing in the live one."""
    grown = example("digits")
    grown.plant("block1", "residual_conv", BlendMode.BERNOULLI)
    slot = grown.garden.slots["block1"]
    before, hooks = grown.output(), dict(slot.site.module._forward_hooks)
    folded = grown.executor.fold()
    assert slot.site.module._forward_hooks == hooks
    assert grown.executor._garden.slots["block1"] is slot
    with torch.no_grad():
        for parameter in [*grown.model.parameters(), *slot.fossils[0].parameters]:
            parameter.add_(1.0)
        assert torch.equal(folded(grown.inputs), before)
    assert not {id(p) for p in folded.parameters()} & {id(p) for p in grown.model.parameters()}


def test_fold_is_in_evaluation_mode() -> None:
    """Dropout and batch norm of a host that is training do not reach the folded model; the live flags stay."""
    grown = Grown(ConvHost(), torch.randn(8, 1, 6, 6), ("stem", "body"))
    grown.plant("body", "norm", BlendMode.CONVEX)
    expected = grown.output()
    grown.model.train()
    folded = grown.executor.fold()
    assert torch.equal(folded(grown.inputs), expected)
    assert not any(part.training for part in folded.modules())
    assert all(part.training for part in grown.model.modules())


class Pairs(nn.Module):
    """A host with a site that gives a tuple, used twice, looked into by its parent, with a hook of its author's."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return self.linear(x), "kept"

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.Inner()
        self.again = self.inner
        self.head = nn.Linear(6, 3)
        self.inner.register_forward_hook(lambda module, args, output: (output[0] * 2.0, output[1]))

    def forward(self, x: Tensor) -> Tensor:
        x, word = self.inner(x)
        assert word == "kept"
        x, _ = self.again(x)
        return self.head(x + self.inner.linear.bias)


def test_odd_sites_fold_as_the_slot_treats_them() -> None:
    """Tuples, shared modules, foreign hooks and attributes of a site work in the folded model as they do live."""
    grown = Grown(Pairs(), torch.randn(5, 6), ("inner",))
    grown.plant("inner", "residual_mlp", BlendMode.MULTIPLY)
    grown.plant("inner", "residual_linear", BlendMode.GATE)
    assert torch.equal(folded_output(grown), grown.output())


def test_fused_encoder_layers_fold() -> None:
    """A site inside torch's own encoder layer is not lost to the fused path."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    grown = Grown(nn.Sequential(layer, nn.Linear(8, 4)), torch.randn(4, 5, 8), ("0.linear1",))
    bare = grown.output()
    grown.plant("0.linear1", "lora", BlendMode.RESIDUAL)
    assert not torch.equal(grown.output(), bare)
    assert torch.equal(folded_output(grown), grown.output())


def test_fold_computes_under_the_autocast_of_the_run() -> None:
    """A run in bfloat16 gives a folded model in bfloat16, the same bits."""

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    model = ConvHost()

    def forward(inputs: Tensor) -> Tensor:
        with autocast():
            output: Tensor = model(inputs)
        return output

    grown = Grown(model, torch.randn(8, 1, 6, 6), ("body",), forward)
    grown.plant("body", "residual_conv", BlendMode.GATE)
    live = grown.output()
    assert live.dtype is torch.bfloat16
    assert torch.equal(folded_output(grown, autocast=autocast), live)


def test_gradients_and_random_streams_stay_behind() -> None:
    """What a live seed carries along for training is not copied."""
    grown = example("tabular")
    seed = grown.plant("hidden1", "residual_linear", BlendMode.BERNOULLI)
    for parameter in [*grown.model.parameters(), *seed.parameters]:
        parameter.grad = torch.ones_like(parameter)
    folded = grown.executor.fold()
    assert all(parameter.grad is None for parameter in folded.parameters())
    fossil = folded.seeds["1"]
    assert isinstance(fossil, Fossil)
    assert fossil.blender.generator is None
    assert seed.blender.generator is not None
