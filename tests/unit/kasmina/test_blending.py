from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from esperd.kasmina import blending
from esperd.kasmina.blending import Blender, BlendRefusedError, SampleGate
from esperd.leyline.vocabulary import BlendMode

Blend = Callable[[Tensor, Tensor, Tensor], Tensor]

SHAPES = [(3, 4, 5, 5), (3, 6, 4), (3, 4)]
TAKEN = torch.tensor([True, False, True])


def _pure(shape: tuple[int, ...], *, detach_host: bool = False, dtype: torch.dtype = torch.float32) -> dict[str, Blend]:
    """Every pure blend function, with what it needs filled in."""
    channel_dim = blending.channel_dim_of(shape)
    ones = [1] * (len(shape) - 1)
    v = torch.linspace(0.0, 1.0, shape[channel_dim], dtype=dtype)
    gate = torch.tensor([0.2, 0.5, 0.9], dtype=dtype).view(-1, *ones)
    taken = TAKEN.view(-1, *ones)
    cap = torch.tensor(0.9)
    keep = detach_host
    return {
        "convex": lambda h, d, a: blending.convex(h, d, a, detach_host=keep),
        "residual": lambda h, d, a: blending.residual(h, d, a, detach_host=keep),
        "channel": lambda h, d, a: blending.channel(h, d, a, v, channel_dim, detach_host=keep),
        "confidence": lambda h, d, a: blending.confidence(h, d, a, detach_host=keep),
        "multiply": lambda h, d, a: blending.multiply(h, d, a, detach_host=keep),
        "gated": lambda h, d, a: blending.gated(h, d, a, gate, detach_host=keep),
        "bernoulli": lambda h, d, a: blending.bernoulli(h, d, taken, detach_host=keep),
        "expectation": lambda h, d, a: blending.bernoulli_expectation(h, d, a, cap, detach_host=keep),
    }


NAMES = list(_pure((3, 4)))
EXACT = [name for name in NAMES if name not in ("multiply", "convex")]


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(torch.int32)


def _blender(mode: BlendMode, shape: tuple[int, ...], seed: int = 0) -> Blender:
    torch.manual_seed(seed)
    return Blender(mode, shape, generator=torch.Generator().manual_seed(seed), yields_logits=True)


MODES = [mode for mode in BlendMode if mode is not BlendMode.UNSPECIFIED]


@pytest.mark.parametrize("name", NAMES)
def test_formulas(name: str) -> None:
    """Each mode computes its formula."""
    torch.manual_seed(0)
    h, d = torch.randn(3, 4), torch.randn(3, 4)
    a = 0.25
    top = h.topk(2, dim=-1).values
    confident = torch.sigmoid(4.0 * (top[:, :1] - top[:, 1:] - 0.2))
    expected = {
        "convex": (1 - a) * h + a * (h + d),
        "residual": h + a * d,
        "channel": h + a * torch.linspace(0.0, 1.0, 4) * d,
        "confidence": h + a * confident * d,
        "multiply": h * (1 + a * torch.tanh(d)),
        "gated": h + a * torch.tensor([[0.2], [0.5], [0.9]]) * d,
        "bernoulli": h + TAKEN.float()[:, None] * d,
        "expectation": h + a * d,
    }
    torch.testing.assert_close(_pure((3, 4))[name](h, d, torch.tensor(a)), expected[name])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_shape_and_dtype_of_the_host(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The result is in the host's dtype also when delta, alpha, shares and gate are float32."""
    h, d = torch.randn(shape).to(dtype), torch.randn(shape)
    out = _pure(shape)[name](h, d, torch.tensor(0.5))
    assert (out.shape, out.dtype) == (h.shape, dtype)
    assert out.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "bernoulli"])
def test_alpha_zero_gives_back_the_host(name: str, shape: tuple[int, ...]) -> None:
    """At alpha 0 and a finite delta every mode's result equals the host's activation."""
    torch.manual_seed(1)
    h, d = torch.randn(shape), 1e6 * torch.randn(shape)
    assert torch.equal(_pure(shape)[name](h, d, torch.tensor(0.0)), h)


def test_alpha_zero_bit_for_bit() -> None:
    """MULTIPLY and BERNOULLI in training keep even the sign of zero; an additive mode turns -0.0 into 0.0."""
    h, d = torch.tensor([[-0.0, 1.0], [-0.0, -3.0], [0.0, 2.0]]), torch.ones(3, 2)
    zero = torch.tensor(0.0)
    assert torch.equal(_bits(blending.multiply(h, d, zero)), _bits(h))
    none = torch.zeros(3, 1, dtype=torch.bool)
    assert torch.equal(_bits(blending.bernoulli(h, d, none)), _bits(h))
    assert torch.equal(blending.residual(h, d, zero), h)
    assert not torch.equal(_bits(blending.residual(h, d, zero)), _bits(h))


def test_bernoulli_keeps_a_nan_from_the_samples_without_the_seed() -> None:
    """A sample that does without the seed is untouched, bit for bit, whatever the seed says; so is its gradient."""
    h = torch.randn(3, 4, requires_grad=True)
    d = torch.full((3, 4), torch.nan)
    out = blending.bernoulli(h, d, TAKEN[:, None])
    assert torch.equal(_bits(out[1]), _bits(h[1]))
    assert out[0].isnan().all()
    (gradient,) = torch.autograd.grad(out[1].sum(), h)
    assert torch.equal(gradient, torch.tensor([[0.0] * 4, [1.0] * 4, [0.0] * 4]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_reach_host_and_delta(name: str, shape: tuple[int, ...]) -> None:
    """The gradients to h and d are those of the function (gradcheck in float64)."""
    torch.manual_seed(2)
    h = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    d = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    blend = _pure(shape, dtype=torch.float64)[name]
    alpha = torch.tensor(0.3, dtype=torch.float64)
    if name == "confidence":  # its gate is detached on purpose, so h is checked below
        assert torch.autograd.gradcheck(lambda delta: blend(h.detach(), delta, alpha), (d,))
    else:
        assert torch.autograd.gradcheck(lambda x, delta: blend(x, delta, alpha), (h, d))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("alpha", [0.1, 0.37, 0.9, 1.0])
def test_the_hosts_own_gradient_is_unchanged(name: str, alpha: float) -> None:
    """An additive mode hands the host exactly the gradient that it was given, bit for bit."""
    grad, g = _host_gradient(name, alpha)
    assert torch.equal(grad, g)


def test_the_hosts_own_gradient_is_unchanged_by_convex_but_for_rounding() -> None:
    """CONVEX adds up (1 - alpha) g and alpha g, which may round."""
    torch.testing.assert_close(*_host_gradient("convex", 0.37))


def _host_gradient(name: str, alpha: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    shape = (3, 64, 8, 8)
    h, d, g = torch.randn(shape, requires_grad=True), torch.randn(shape), torch.randn(shape)
    out = _pure(shape)[name](h, d, torch.tensor(alpha))
    (grad,) = torch.autograd.grad(out, h, g)
    return grad, g


@pytest.mark.parametrize("name", NAMES)
def test_strict_isolation_detaches_the_host(name: str) -> None:
    """With detach_host no gradient goes to h, the delta's gradient and the values stay the same."""
    torch.manual_seed(4)
    h, d = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    alpha = torch.tensor(0.5)
    strict = _pure((3, 4), detach_host=True)[name](h, d, alpha)
    open_ = _pure((3, 4))[name](h, d, alpha)
    assert torch.equal(strict, open_)
    (from_strict,) = torch.autograd.grad(strict.sum(), d)
    (from_open,) = torch.autograd.grad(open_.sum(), d, retain_graph=True)
    assert torch.equal(from_strict, from_open)
    strict = _pure((3, 4), detach_host=True)[name](h, d, alpha)
    assert torch.autograd.grad(strict.sum(), h, allow_unused=True)[0] is None


@pytest.mark.parametrize("name", NAMES)
def test_alpha_is_never_learned(name: str) -> None:
    """Alpha is a buffer: a result from a plain alpha needs no gradient of its own."""
    out = _pure((3, 4))[name](torch.randn(3, 4), torch.randn(3, 4), torch.tensor(0.5))
    assert not out.requires_grad


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.floats(0.0, 1.0),
    st.integers(0, 2**31),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e18]),
)
def test_finite_for_finite_input(name: str, alpha: float, seed: int, scale: float) -> None:
    """Finite activations and deltas, tiny or huge, give finite results and gradients."""
    generator = torch.Generator().manual_seed(seed)
    h = (scale * torch.randn(3, 4, generator=generator)).requires_grad_()
    d = (scale * torch.randn(3, 4, generator=generator)).requires_grad_()
    out = _pure((3, 4))[name](h, d, torch.tensor(alpha))
    gradients = torch.autograd.grad(out.sum(), (h, d))
    assert out.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@given(st.floats(0.0, 1.0), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_multiply_stays_within_its_range(alpha: float, seed: int) -> None:
    """MULTIPLY scales each entry by a factor within [1 - alpha, 1 + alpha]."""
    generator = torch.Generator().manual_seed(seed)
    h, d = torch.randn(3, 4, generator=generator), 10 * torch.randn(3, 4, generator=generator)
    out = blending.multiply(h, d, torch.tensor(alpha))
    ulp = 1e-6
    assert (out.abs() <= h.abs() * (1 + alpha) + ulp).all()
    assert (out.abs() >= h.abs() * (1 - alpha) - ulp).all()


@pytest.mark.parametrize("name", NAMES)
def test_compiles_whole(name: str) -> None:
    """Forward and backward of every mode are captured in one graph, and a new alpha does not compile again."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    blend = _pure((3, 4, 5, 5))[name]
    compiled = torch.compile(blend, fullgraph=True, backend=counter)
    for alpha in (0.0, 0.3, 1.0):
        h, d = torch.randn(3, 4, 5, 5, requires_grad=True), torch.randn(3, 4, 5, 5, requires_grad=True)
        out = compiled(h, d, torch.tensor(alpha))
        torch.testing.assert_close(out, blend(h, d, torch.tensor(alpha)))
        torch.autograd.grad(out.sum(), (h, d))
    assert counter.frame_count == 1


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode is not BlendMode.BERNOULLI])
def test_a_blender_compiles_whole(mode: BlendMode) -> None:
    """The module compiles in one graph as well; BERNOULLI's draw stands outside, its blend is tested above."""
    torch.compiler.reset()
    blender = _blender(mode, (3, 4, 5, 5))
    compiled = torch.compile(blender, fullgraph=True, backend="eager")
    h, x, d = (torch.randn(3, 4, 5, 5) for _ in range(3))
    torch.testing.assert_close(compiled(h, x, d, torch.tensor(0.5)), blender(h, x, d, torch.tensor(0.5)))


@pytest.mark.parametrize("num_entries", [3, 5, 1])
def test_channel_refuses_a_wrong_number_of_shares(num_entries: int) -> None:
    """There must be one share for each channel; one for all is no exception."""
    h = torch.randn(2, 4, 3, 3)
    with pytest.raises(BlendRefusedError, match="4 channels"):
        blending.channel(h, h, torch.tensor(0.5), torch.ones(num_entries), 1)


def test_channel_weights_the_channel_dimension() -> None:
    """Share c scales channel c, wherever the channels are."""
    v = torch.tensor([0.0, 1.0])
    ones = torch.ones(1, 2, 1, 1)
    out = blending.channel(torch.zeros(1, 2, 3, 3), ones.expand(1, 2, 3, 3), torch.tensor(1.0), v, 1)
    assert out[0, 0].sum() == 0.0
    assert out[0, 1].sum() == 9.0


def test_confidence_needs_logits() -> None:
    """Fewer than two classes are no logits; a site that does not yield logits is refused."""
    with pytest.raises(BlendRefusedError, match="two classes"):
        blending.confidence(torch.randn(3, 1), torch.randn(3, 1), torch.tensor(0.5))
    with pytest.raises(BlendRefusedError, match="logits"):
        Blender(BlendMode.CONFIDENCE, (3, 10))


def test_confidence_hears_the_seed_more_where_the_host_is_sure() -> None:
    """The gate grows with top1 - top2 and is one half at the threshold of 0.2."""
    h = torch.tensor([[0.2, 0.0], [5.0, 0.0], [0.0, 0.0]])
    change = blending.confidence(h, torch.ones(3, 2), torch.tensor(1.0)) - h
    assert change[0, 0].item() == pytest.approx(0.5)
    assert change[1, 0] > change[0, 0] > change[2, 0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_blender_at_alpha_zero_and_in_evaluation(mode: BlendMode, shape: tuple[int, ...]) -> None:
    """Every blender gives the host back at alpha 0, in training and in evaluation."""
    torch.manual_seed(5)
    blender = _blender(mode, shape)
    h, d = torch.randn(shape), torch.randn(shape)
    assert torch.equal(blender.train()(h, h, d, torch.tensor(0.0)), h)
    assert torch.equal(blender.eval()(h, h, d, torch.tensor(0.0)), h)


@pytest.mark.parametrize("mode", [BlendMode.CONVEX, BlendMode.RESIDUAL, BlendMode.CHANNEL, BlendMode.BERNOULLI])
def test_alpha_one_is_the_whole_seed(mode: BlendMode) -> None:
    """At alpha 1 the additive modes give h + d in evaluation (BERNOULLI with its cap lifted, in training too)."""
    torch.manual_seed(6)
    blender = _blender(mode, (3, 4))
    h, d, one = torch.randn(3, 4), torch.randn(3, 4), torch.tensor(1.0)
    blender.lift_cap()
    torch.testing.assert_close(blender.eval()(h, h, d, one), h + d)
    if mode is BlendMode.BERNOULLI:
        assert torch.equal(blender.train()(h, h, d, one), h + d)
        assert torch.equal(blender.eval()(h, h, d, one), h + d)


def test_blender_refuses_what_it_cannot_do() -> None:
    """An unspecified mode, a BERNOULLI without its generator and a shape without channels are refused."""
    with pytest.raises(BlendRefusedError, match="unspecified"):
        Blender(BlendMode.UNSPECIFIED, (3, 4))
    with pytest.raises(BlendRefusedError, match="generator"):
        Blender(BlendMode.BERNOULLI, (3, 4))
    with pytest.raises(BlendRefusedError, match="channel"):
        Blender(BlendMode.RESIDUAL, (3,))


def test_bernoulli_takes_the_share_alpha_of_samples_up_to_the_cap() -> None:
    """The share of samples that take the seed is min(alpha, 0.9); none at 0."""
    h, cap = torch.zeros(20_000, 1), torch.tensor(0.9)
    generator = torch.Generator().manual_seed(7)
    for alpha, share in ((0.0, 0.0), (0.3, 0.3), (1.0, 0.9)):
        taken = blending.draw_taken(h, torch.tensor(alpha), cap, generator)
        assert taken.float().mean().item() == pytest.approx(share, abs=0.0 if alpha == 0.0 else 0.015)


def test_bernoulli_uses_its_own_stream_only() -> None:
    """The global stream stays where it is; the own one moves alike for every alpha, so runs stay comparable."""
    h, d = torch.randn(8, 4), torch.randn(8, 4)
    before = torch.get_rng_state()
    streams = []
    for alpha in (0.0, 0.5, 1.0):
        blender = _blender_without_global_draws()
        blender(h, h, d, torch.tensor(alpha))
        assert blender.generator is not None
        streams.append(blender.generator.get_state())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(streams[0], streams[1])
    assert torch.equal(streams[0], streams[2])


def _blender_without_global_draws() -> Blender:
    return Blender(BlendMode.BERNOULLI, (8, 4), generator=torch.Generator().manual_seed(0))


def test_bernoulli_evaluates_to_its_expectation() -> None:
    """The mean of many draws in training is what evaluation gives."""
    blender = _blender(BlendMode.BERNOULLI, (3, 4))
    h, d, alpha = torch.zeros(20_000, 4), torch.ones(20_000, 4), torch.tensor(0.6)
    drawn = blender.train()(h, h, d, alpha).mean().item()
    assert blender.eval()(h, h, d, alpha).mean().item() == pytest.approx(0.6)
    assert drawn == pytest.approx(0.6, abs=0.015)


@pytest.mark.parametrize(
    ("shape", "channel_dim", "gate_shape"),
    [((3, 8, 5, 5), 1, (3, 1, 1, 1)), ((3, 6, 8), 2, (3, 1, 1)), ((3, 8), 1, (3, 1))],
)
def test_gate_gives_one_number_for_each_sample(
    shape: tuple[int, ...], channel_dim: int, gate_shape: tuple[int, ...]
) -> None:
    """The gate is one half at first, in (0, 1), and of a shape that spreads over its sample."""
    gate = SampleGate(8, channel_dim)
    assert torch.equal(gate(torch.randn(shape)), torch.full(gate_shape, 0.5))
    torch.nn.init.normal_(gate.out.weight)
    values = gate(torch.randn(shape))
    assert ((values > 0.0) & (values < 1.0)).all()
    assert values.unique().numel() == 3


@pytest.mark.parametrize(("num_channels", "num_hidden"), [(4, 8), (32, 8), (64, 16)])
def test_gate_hidden_width(num_channels: int, num_hidden: int) -> None:
    """The hidden width is a quarter of the channels, at least 8."""
    assert SampleGate(num_channels, 1).hidden.out_features == num_hidden


def test_gate_and_shares_learn() -> None:
    """The learned parts of GATE and CHANNEL are parameters, and the blend's loss reaches them."""
    torch.manual_seed(8)
    for mode in (BlendMode.GATE, BlendMode.CHANNEL):
        blender = _blender(mode, (3, 4))
        h, d = torch.randn(3, 4), torch.randn(3, 4)
        torch.autograd.backward((blender(h, h, d, torch.tensor(0.5)) ** 2).sum())
        gradients = [parameter.grad for parameter in blender.parameters()]
        assert gradients
        assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_shares_stay_within_zero_and_one() -> None:
    """A share that an optimizer pushed out of [0, 1] counts as the nearest end."""
    blender = _blender(BlendMode.CHANNEL, (3, 2))
    assert blender.shares is not None
    blender.shares.data = torch.tensor([-3.0, 3.0])
    out = blender(torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(3, 2), torch.tensor(1.0))
    assert torch.equal(out, torch.tensor([[0.0, 1.0]]).expand(3, 2))


def test_feeds_a_channels_last_host() -> None:
    """Memory format does not matter to a blend's values or gradients (regression: channels_last with detach)."""
    h = torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    d = torch.randn(3, 4, 5, 5)
    for blend in _pure((3, 4, 5, 5)).values():
        out = blend(h, d, torch.tensor(0.5))
        torch.testing.assert_close(out, blend(h.contiguous(), d, torch.tensor(0.5)))
        torch.autograd.grad(out.sum(), (h, d) if d.requires_grad else h)
