import copy

import pytest
import torch
from torch import Tensor, nn

from esperd.kasmina.blueprints.costs import FlopCountError, count_flops, count_step_flops, estimate_cost
from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, BlueprintParameterError, SiteNotAdmissibleError
from esperd.kasmina.blueprints.registry import standard_registry

REGISTRY = standard_registry()
FLOAT_BYTES = 4
SITE_SHAPES: dict[int, tuple[int, ...]] = {4: (2, 8, 6, 6), 3: (2, 5, 16), 2: (2, 16)}
CASES = [
    pytest.param(blueprint, SITE_SHAPES[rank], id=blueprint.blueprint_id)
    for blueprint in REGISTRY
    for rank in blueprint.ranks
]


@pytest.mark.parametrize(
    ("blueprint_id", "shape", "products"),
    [
        ("conv1x1", (32, 8, 4, 6), 2 * (8 * 32) * 24),
        ("depthwise", (32, 8, 4, 6), (8 * 9 + 8 * 8) * 24),
        ("conv_light", (1, 8, 4, 6), 9 * 8 * 8 * 24),
        ("residual_conv", (1, 4, 8, 8), 2 * (9 * 4 * 16) * 64),
        ("residual_conv", (7, 16, 3, 3), 2 * (9 * 16 * 64) * 9),
        ("squeeze_excite", (1, 32, 4, 4), 2 * 32 * 8),
        ("norm", (1, 32, 4, 4), 0),
        ("layer_scale_norm", (1, 5, 16), 0),
        ("lora", (3, 5, 16), 5 * 2 * 16 * 8),
        ("bottleneck_mlp", (1, 5, 16), 5 * 2 * 16 * 4),
        ("gated_ffn", (1, 5, 16), 5 * 3 * 16 * 32),
        ("residual_linear", (9, 16), 16 * 16),
        ("residual_mlp", (1, 16), 2 * 16 * 64),
    ],
)
def test_costs_by_hand(blueprint_id: str, shape: tuple[int, ...], products: int) -> None:
    """Forward is 2 FLOPs for each multiply-accumulate of one sample; backward twice that, to weights and input."""
    cost = estimate_cost(REGISTRY.get(blueprint_id), shape)
    assert cost.forward_flops == 2 * products
    assert cost.backward_flops == 4 * products


@pytest.mark.parametrize(("length", "width"), [(5, 16), (64, 32), (128, 64)])
def test_attention_by_hand(length: int, width: int) -> None:
    """Four projections, and two products over all pairs of positions; their backward makes five of those."""
    cost = estimate_cost(REGISTRY.get("causal_attention"), (2, length, width))
    projections, pairs = 4 * length * width * width, length * length * width
    assert cost.forward_flops == 2 * (projections + 2 * pairs)
    assert cost.backward_flops == 2 * (2 * projections + 5 * pairs)


def test_layers_add_up() -> None:
    """Three transformer layers cost three times one: attention plus a perceptron of four times the width."""
    one, three = (
        estimate_cost(REGISTRY.get("transformer_block"), (1, 10, 32), parameters={"num_layers": count})
        for count in (1, 3)
    )
    attention = estimate_cost(REGISTRY.get("causal_attention"), (1, 10, 32))
    assert one.forward_flops == attention.forward_flops + 2 * 10 * 8 * 32 * 32
    assert three.num_parameters == 3 * one.num_parameters
    assert three.forward_flops == 3 * one.forward_flops
    assert three.backward_flops == 3 * one.backward_flops


@pytest.mark.parametrize(("blueprint", "shape"), CASES)
def test_the_batch_size_of_the_site_does_not_matter(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """Costs are for one sample."""
    assert estimate_cost(blueprint, shape) == estimate_cost(blueprint, (1, *shape[1:]))


@pytest.mark.parametrize(("blueprint", "shape"), CASES)
def test_counts_all_parameters(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """The number of parameters is that of the module that will be built."""
    module = blueprint.build(shape)
    assert estimate_cost(blueprint, shape).num_parameters == sum(p.numel() for p in module.parameters())


def test_activation_bytes_by_hand() -> None:
    """Kept beyond the host's activation: three hidden maps (into norm, GELU, last layer), mean and 1/sd of 8 groups."""
    cost = estimate_cost(REGISTRY.get("residual_conv"), (1, 8, 8, 8))
    assert cost.activation_bytes == FLOAT_BYTES * (3 * 32 * 64 + 2 * 8)
    assert estimate_cost(REGISTRY.get("residual_linear"), (1, 16)).activation_bytes == 0
    assert estimate_cost(REGISTRY.get("lora"), (1, 5, 16)).activation_bytes == FLOAT_BYTES * 5 * 8


def test_half_precision_keeps_half_the_bytes() -> None:
    """Activation bytes are those of the site's dtype."""
    lora = REGISTRY.get("lora")
    full, half = (estimate_cost(lora, (1, 5, 16), dtype) for dtype in (torch.float32, torch.bfloat16))
    assert 2 * half.activation_bytes == full.activation_bytes
    assert half.forward_flops == full.forward_flops


@pytest.mark.parametrize(("blueprint", "shape"), CASES)
def test_estimating_moves_no_random_stream(blueprint: BlueprintDescriptor, shape: tuple[int, ...]) -> None:
    """A policy may ask for costs at any time without changing the run."""
    before = torch.get_rng_state()
    estimate_cost(blueprint, shape)
    assert torch.equal(torch.get_rng_state(), before)


def test_refuses_what_cannot_be_built() -> None:
    """The refusals are those of building."""
    with pytest.raises(BlueprintParameterError):
        estimate_cost(REGISTRY.get("lora"), (1, 5, 16), parameters={"rank": 0})
    with pytest.raises(SiteNotAdmissibleError):
        estimate_cost(REGISTRY.get("lora"), (1, 16))


def _host() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))


def test_a_step_by_hand() -> None:
    """Forward and backward of a two-layer host; the first layer's input needs no gradient."""
    counted = count_flops(_host(), torch.randn(3, 4))
    first, last = 2 * 3 * 4 * 8, 2 * 3 * 8 * 2
    assert counted.forward == first + last
    assert counted.backward == first + 2 * last
    assert counted.total == counted.forward + counted.backward


def test_a_frozen_part_costs_no_weight_gradient() -> None:
    """What is frozen is not counted in the backward."""
    host = _host()
    host[4].requires_grad_(False)
    counted = count_flops(host, torch.randn(3, 4))
    assert counted.backward == 2 * 3 * 4 * 8 + 2 * 3 * 8 * 2


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (4, 1), (2, 2)])
def test_convolutions_by_hand(groups: int, stride: int) -> None:
    """Strided and grouped convolutions count what they multiply, forward and backward alike."""
    conv = nn.Conv2d(8, 4, 3, padding=1, stride=stride, groups=groups)
    counted = count_flops(conv, torch.randn(2, 8, 6, 6, requires_grad=True))
    products = 2 * (6 // stride) ** 2 * 4 * (8 // groups) * 9
    assert (counted.forward, counted.backward) == (2 * products, 4 * products)


def test_transposed_convolution_by_hand() -> None:
    """A transposed convolution multiplies each input pixel with the whole kernel."""
    conv = nn.ConvTranspose2d(3, 5, 2, stride=2)
    counted = count_flops(conv, torch.randn(2, 3, 4, 4, requires_grad=True))
    products = 2 * 16 * 3 * 5 * 4
    assert (counted.forward, counted.backward) == (2 * products, 4 * products)


def test_a_step_with_its_loss() -> None:
    """The step may be any function of the module and its inputs; the loss adds no product of its own."""

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    inputs = torch.randn(3, 4)
    counted = count_step_flops(_host(), step, inputs, torch.tensor([0, 1, 1]))
    assert counted == count_flops(_host(), inputs)


def test_counting_leaves_the_host_alone() -> None:
    """Parameters, gradients, buffers, hooks, mode and the random stream are bit for bit what they were."""
    host, inputs = _host(), torch.randn(3, 4, requires_grad=True)
    state, rng = copy.deepcopy(host.state_dict()), torch.get_rng_state()
    count_flops(host, inputs)
    assert all(torch.equal(tensor, state[name]) for name, tensor in host.state_dict().items())
    assert all(parameter.grad is None for parameter in host.parameters())
    assert inputs.grad is None
    assert torch.equal(torch.get_rng_state(), rng)
    assert type(host[0].weight) is nn.Parameter
    assert not host._forward_hooks
    assert host.training


def test_tied_weights_are_counted_where_they_are_used() -> None:
    """A tied output layer costs its product although its weight is the embedding's."""
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    counted = count_flops(model, torch.zeros(2, 3, dtype=torch.long))
    assert counted.forward == 2 * 6 * 4 * 10
    assert counted.backward == 4 * 6 * 4 * 10


def test_autocast_does_not_hide_products() -> None:
    """Under autocast the same products are counted."""

    def step(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = model(x).float().sum()
            return out

    host, inputs = _host(), torch.randn(3, 4)
    assert count_step_flops(host, step, inputs) == count_flops(host, inputs)


class _Restless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y if y.sum().item() > 0 else -y


def test_a_model_that_reads_values_is_refused() -> None:
    """Where the way through the model hangs on values, the count is refused rather than guessed."""
    with pytest.raises(FlopCountError, match="reads values"):
        count_flops(_Restless(), torch.randn(1, 2))
