import pytest
import torch
from torch import Tensor, nn

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor
from esperd.kasmina.blueprints.layers import CausalAttention, group_norm, num_heads_for
from esperd.kasmina.blueprints.registry import standard_registry

SHAPES: dict[int, list[tuple[int, ...]]] = {
    4: [(3, 8, 6, 6), (2, 4, 1, 1), (2, 1, 3, 5), (2, 6, 7, 4), (2, 30, 2, 2)],
    3: [(3, 5, 16), (2, 1, 32), (2, 7, 6), (1, 4, 1)],
    2: [(3, 16), (1, 5), (4, 1)],
}
BLUEPRINTS = list(standard_registry())
CASES = [
    pytest.param(blueprint, shape, id=f"{blueprint.blueprint_id}-{'x'.join(map(str, shape))}")
    for blueprint in BLUEPRINTS
    for rank in blueprint.ranks
    for shape in SHAPES[rank]
]
FIRST_CASES = [
    pytest.param(blueprint, SHAPES[rank][0], id=blueprint.blueprint_id)
    for blueprint in BLUEPRINTS
    for rank in blueprint.ranks
]
SEQUENCE_CASES = [
    pytest.param(blueprint, SHAPES[3][0], id=blueprint.blueprint_id) for blueprint in BLUEPRINTS if 3 in blueprint.ranks
]


def _awake(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> nn.Module:
    """A module as it is after some training: no parameter is zero."""
    torch.manual_seed(0)
    module = blueprint.build(shape)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize(("blueprint", "shape"), CASES)
def test_a_new_seed_adds_exactly_nothing(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """A fresh module's delta has the shape of its input and is exactly zero: the model computes what it did."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    delta = blueprint.build(shape)(x)
    assert delta.shape == x.shape
    assert torch.count_nonzero(delta) == 0


@pytest.mark.parametrize(("blueprint", "shape"), FIRST_CASES)
def test_a_new_seed_can_start_to_learn(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """A few optimizer steps towards a target move every parameter and lower the loss."""
    torch.manual_seed(0)
    module = blueprint.build(shape)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, weight_decay=0.0)
    x = torch.randn(shape) + 0.5
    target, losses = 0.5 * x.flip(0) + 0.2, []
    for _ in range(20):
        loss = nn.functional.mse_loss(module(x), target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.98 * losses[0]
    for name, parameter in module.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(("blueprint", "shape"), CASES)
def test_gradients_are_finite(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """At every admissible shape, single pixels and single features included, output and gradients are finite."""
    module = _awake(blueprint, shape)
    x = torch.randn(shape, requires_grad=True)
    out = module(x)
    torch.autograd.backward(out.square().sum())
    assert out.isfinite().all()
    for tensor in (x, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize(("blueprint", "shape"), FIRST_CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_follows_its_dtype(blueprint: BlueprintDescriptor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Moved to another dtype, a module answers in that dtype."""
    module = _awake(blueprint, shape).to(dtype)
    out = module(torch.randn(shape, dtype=dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()


@pytest.mark.parametrize(("blueprint", "shape"), FIRST_CASES)
def test_samples_do_not_mix(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """What a sample gets does not depend on the others of its batch, in training mode too."""
    module = _awake(blueprint, shape).train()
    x = torch.randn(shape)
    torch.testing.assert_close(module(x)[:1], module(x[:1]))


@pytest.mark.parametrize(("blueprint", "shape"), FIRST_CASES)
def test_holds_no_running_statistics(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """No BatchNorm, no buffers at all: a seed has no state but its parameters, and no dropout of its own."""
    module = blueprint.build(shape)
    assert list(module.buffers()) == []
    forbidden = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
    assert not any(isinstance(part, forbidden) for part in module.modules())


@pytest.mark.parametrize(("blueprint", "shape"), FIRST_CASES)
def test_each_seed_has_parameters_of_its_own(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """Two seeds of one blueprint share no parameter, and no parameter appears twice in one."""
    first, second = blueprint.build(shape), blueprint.build(shape)
    ids = [id(parameter) for module in (first, second) for parameter in module.parameters()]
    assert len(set(ids)) == len(ids)
    assert ids


@pytest.mark.parametrize(("blueprint", "shape"), FIRST_CASES)
def test_compiles_whole(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """A blueprint is captured in one graph, so that it can be compiled ahead of time."""
    torch.compiler.reset()
    module = _awake(blueprint, shape)
    x = torch.randn(shape)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="eager")(x), module(x))


@pytest.mark.parametrize(("blueprint", "shape"), SEQUENCE_CASES)
def test_sequences_see_no_future(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """The delta at position t does not change with anything after t."""
    module = _awake(blueprint, shape).double()
    x = torch.randn(shape, dtype=torch.float64)
    changed = x.clone()
    changed[:, 3:] = torch.randn_like(changed[:, 3:])
    torch.testing.assert_close(module(x)[:, :3], module(changed)[:, :3])
    assert not torch.allclose(module(x)[:, 3:], module(changed)[:, 3:])


def test_attention_sees_the_past() -> None:
    """The delta at position t changes with what came before."""
    torch.manual_seed(0)
    attention = CausalAttention(16)
    nn.init.normal_(attention.out.weight)
    x = torch.randn(1, 5, 16)
    changed = x.clone()
    changed[:, 0] = torch.randn(16)
    assert not torch.allclose(attention(x)[:, 4], attention(changed)[:, 4])


def test_attention_matches_its_formula() -> None:
    """softmax(q k / sqrt(K), masked) v per head, then the output map."""
    torch.manual_seed(0)
    attention = CausalAttention(16).double()
    nn.init.normal_(attention.out.weight)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    query, key, value = attention.query_key_value(attention.norm(x)).split(16, dim=-1)

    def head(index: int) -> Tensor:
        part = slice(8 * index, 8 * index + 8)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 8**0.5
        masked = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        mixed: Tensor = masked.softmax(-1) @ value[..., part]
        return mixed

    assert attention.num_heads == 2
    torch.testing.assert_close(attention(x), attention.out(torch.cat([head(0), head(1)], dim=-1)))


@pytest.mark.parametrize(
    ("width", "num_heads"), [(384, 8), (64, 8), (32, 4), (16, 2), (12, 1), (8, 1), (24, 2), (7, 1), (40, 4)]
)
def test_heads_divide_the_width(width: int, num_heads: int) -> None:
    """The most heads of {8, 4, 2, 1} that divide the width into heads of eight or more."""
    assert num_heads_for(width) == num_heads


@pytest.mark.parametrize(("num_channels", "num_groups"), [(64, 8), (32, 8), (16, 4), (8, 2), (4, 1), (6, 1), (7, 1)])
def test_groups_hold_four_channels_or_more(num_channels: int, num_groups: int) -> None:
    """Groups are never so small that a single pixel is normalised to nothing."""
    assert group_norm(num_channels).num_groups == num_groups


@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_stack_is_its_layers_one_after_the_other(num_layers: int) -> None:
    """The stack's delta is what running its residual layers in turn adds to the input."""
    torch.manual_seed(0)
    block = standard_registry().get("transformer_block").build((2, 5, 16), {"num_layers": num_layers}).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    y = x
    for part in block.parts:  # type: ignore[union-attr]
        y = y + part(y)
    torch.testing.assert_close(block(x), y - x)


@pytest.mark.parametrize(
    ("blueprint_id", "shape", "parameters", "num_parameters"),
    [
        ("norm", (1, 16, 4, 4), {}, 2 * 16),
        ("squeeze_excite", (1, 32, 4, 4), {"reduction": 8}, 32 * 4 + 4 + 4 * 32 + 32),
        ("conv1x1", (1, 8, 4, 4), {"expansion": 2}, 8 * 16 + 16 + 2 * 16 + 16 * 8 + 8),
        ("depthwise", (1, 8, 4, 4), {"radius": 2}, 8 * 25 + 8 + 2 * 8 + 8 * 8 + 8),
        ("conv_light", (1, 8, 4, 4), {}, 2 * 8 + 9 * 8 * 8 + 8),
        ("residual_conv", (1, 8, 4, 4), {}, 9 * 8 * 32 + 32 + 2 * 32 + 9 * 32 * 8 + 8),
        ("layer_scale_norm", (1, 4, 16), {}, 16),
        ("lora", (1, 4, 384), {}, 6_144),
        ("lora", (1, 4, 384), {"rank": 32}, 24_576),
        ("bottleneck_mlp", (1, 4, 16), {"reduction": 2}, 2 * 16 + 16 * 8 + 8 + 8 * 16 + 16),
        ("gated_ffn", (1, 4, 16), {"expansion": 1.5}, 2 * 16 + 16 * 48 + 48 + 24 * 16 + 16),
        ("causal_attention", (1, 4, 384), {}, 2 * 384 + 4 * 384 * 384 + 4 * 384),
        ("transformer_block", (1, 4, 32), {"num_layers": 3}, 3 * (12 * 32 * 32 + 13 * 32)),
        ("residual_linear", (1, 16), {}, 16 * 16 + 16),
        ("residual_mlp", (1, 16), {"expansion": 2}, 2 * 16 + 16 * 32 + 32 + 32 * 16 + 16),
    ],
)
def test_parameters_change_the_size(
    blueprint_id: str, shape: tuple[int, ...], parameters: dict[str, float], num_parameters: int
) -> None:
    """Each blueprint has exactly the parameters that its plan says, by hand."""
    module = standard_registry().get(blueprint_id).build(shape, parameters)
    assert sum(parameter.numel() for parameter in module.parameters()) == num_parameters
