"""Trials with inputs that no kernel is for: the libraries refuse them, and the wrapper never hands them over.

The validator's own process. A library that computes with a wrong stride or shape reads beyond its input.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.variant import dtype_named
from esperd.leyline.vocabulary import KernelInputKind
from esperd.urabrask.worker.channel import Channel
from esperd.urabrask.worker.specimen import Specimen

Run = Callable[[list[Tensor]], list[Tensor]]


def refused_inputs(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """How many wrong inputs each library computes with."""
    accepted = []
    for name, run, inputs, index in _calls(specimen, kernel):
        for what, wrong in _wrong(inputs[index]):
            try:
                run([*inputs[:index], wrong, *inputs[index + 1 :]])
            except RuntimeError:
                continue
            accepted.append(f"{name} with {what}")
    channel.measured("refused_inputs", len(accepted), "; ".join(accepted))


def fallbacks(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """How many activations that do not fit the wrapper takes for fitting ones."""
    with specimen.conditions():
        taken = [what for what, x in _misfits(specimen) if kernel.fits(x)]
    x = specimen.activation(specimen.manifest.hint_batch, 1)
    other = torch.float16 if specimen.autocast_dtype is None else None
    with torch.autocast(specimen.device.type, other, enabled=other is not None):
        if kernel.fits(x):
            taken.append("another autocast")
    channel.measured("fallbacks", len(taken), "; ".join(taken))


def _calls(specimen: Specimen, kernel: Kernel) -> Iterator[tuple[str, Run, list[Tensor], int]]:
    """Each library with inputs that are right, and the place of the one to make wrong."""
    manifest = kernel.manifest
    inputs = [
        specimen.activation(manifest.hint_batch, 1)
        if one.kind is KernelInputKind.ACTIVATION
        else torch.ones(one.shape, dtype=dtype_named(one.dtype), device=specimen.device)
        for one in manifest.inputs
    ]
    with torch.no_grad():
        outputs = kernel.forward(list(inputs))
    saved = [inputs[one.index] if one.is_input else outputs[one.index] for one in manifest.saved]
    gradient = torch.ones_like(outputs[manifest.output_index])
    yield "forward", _runs(kernel.forward), inputs, kernel.activation_index
    yield "backward", _runs(kernel.backward), [*saved, gradient], len(saved)
    yield "parameter_backward", _runs(kernel.parameter_backward), [*saved, gradient], len(saved)


def _runs(run: Callable[[list[Tensor]], list[Tensor]]) -> Run:
    def without_autograd(inputs: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return run(inputs)

    return without_autograd


def _wrong(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "a wrong dtype", x.to(torch.float64)
    if x.shape[-1] > 1:
        yield "a wrong size", x[..., : x.shape[-1] // 2].contiguous()
    wide = torch.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype=x.dtype, device=x.device)
    yield "wrong strides", wide[..., ::2]


def _misfits(specimen: Specimen) -> Iterator[tuple[str, Tensor]]:
    manifest, device, dtype = specimen.manifest, specimen.device, specimen.dtype
    tail = tuple(manifest.variant.tail_shape)
    one = torch.zeros((), dtype=dtype, device=device)
    yield "a batch beyond the largest", one.expand(manifest.max_batch + 1, *tail)
    yield "a batch below the smallest", one.expand(manifest.min_batch - 1, *tail)
    yield "another size", one.expand(manifest.hint_batch, *tail[:-1], tail[-1] + 1)
    yield "one dimension more", one.expand(manifest.hint_batch, *tail, 1)
    yield "another dtype", torch.zeros((), dtype=torch.float64, device=device).expand(manifest.hint_batch, *tail)
    yield "another device", torch.empty((manifest.hint_batch, *tail), dtype=dtype, device="meta")
