"""A kernel that is open: three native libraries that compute a blueprint's delta and its gradients.

Training thread; the loader opens it and warms it up on its own. It holds no weights: parameters and buffers stay with
the eager module and are handed in at every call, so one kernel serves any number of seeds of its variant, and an
optimizer or a checkpoint never sees a difference. Gradients are first order only. Decides nothing about trust: see
`opening.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from esperd.kasmina.kernels.variant import autocast_named, dtype_named
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelManifest, KernelReport
from esperd.leyline.vocabulary import KernelFileRole, KernelInputKind

ALIGNMENT_BYTES = 16
"""Where the compiler takes inputs to begin."""

Gradients = tuple[Tensor | None, ...]
"""One for each input of the forward library."""


class Runner(Protocol):
    """A native library that has been opened."""

    def run(self, inputs: Sequence[Tensor], /) -> list[Tensor]:
        """Compute; checks nothing but what `AOTI_RUNTIME_CHECK_INPUTS` has it check."""
        ...


class Kernel:
    """Three libraries and what is known of them."""

    def __init__(
        self,
        manifest: KernelManifest,
        report: KernelReport | None,
        runners: Mapping[KernelFileRole, Runner],
        device: torch.device,
    ) -> None:
        self.manifest = manifest
        self.report = report
        self.device = device
        self._runners = runners
        self.forward = runners[KernelFileRole.FORWARD].run
        self.backward = runners[KernelFileRole.BACKWARD].run
        self.parameter_backward = runners[KernelFileRole.PARAMETER_BACKWARD].run
        kinds = [one.kind for one in manifest.inputs]
        # Read at every step, so kept at hand.
        self.activation_index = kinds.index(KernelInputKind.ACTIVATION)
        self.output_index = manifest.output_index
        self.saved = [(one.is_input, one.index) for one in manifest.saved]
        self.gradients, self.parameter_gradients = manifest.gradients, manifest.parameter_gradients
        variant = manifest.variant
        self._dtype, self._tail = dtype_named(variant.dtype), torch.Size(variant.tail_shape)
        self._device_type = variant.device_type
        self._autocast = autocast_named(variant.autocast_dtype)
        self._batches = range(manifest.min_batch, manifest.max_batch + 1)

    @property
    def artifact_id(self) -> str:
        """SHA-256 (hex) of its manifest."""
        return self.manifest.artifact_id

    @property
    def resident_bytes(self) -> int:
        """Memory that it takes: as the validator measured it, and no less than its files."""
        measured = 0 if self.report is None else self.report.resident_bytes
        return max(measured, self.manifest.num_bytes)

    def misfit(self, x: Tensor) -> str:
        """Why this activation, here and now, is not for the kernel; empty when it is."""
        shape, kind = x.shape, self._device_type
        if shape[1:] != self._tail:
            return f"the activation is {tuple(shape)}, the kernel is for (batch, {', '.join(map(str, self._tail))})"
        if shape[0] not in self._batches:
            return f"the batch is {shape[0]}, the kernel is for {self._batches.start} to {self._batches.stop - 1}"
        if x.dtype is not self._dtype:
            return f"the activation is {x.dtype}, the kernel is for {self._dtype}"
        if x.device.type != kind:
            return f"the activation is on {x.device}, the kernel is for {kind}"
        if torch.is_autocast_enabled(kind):
            if torch.get_autocast_dtype(kind) is not self._autocast:
                return f"autocast is to {torch.get_autocast_dtype(kind)}, the kernel is for {self._autocast}"
        elif self._autocast is not None:
            return f"there is no autocast, the kernel is for {self._autocast}"
        return ""

    def fits(self, x: Tensor) -> bool:
        """Whether the kernel may compute this activation, here and now."""
        return not self.misfit(x)

    def warm_up(self, through: Mapping[KernelFileRole, Runner] | None = None) -> None:
        """One forward and both backwards at the batch size that it was compiled at, on made-up numbers.

        After it no first call of a seed is slower than the others. Draws nothing from random generators unless the
        kernel does. Raises whatever the libraries raise.

        Args:
            through: another way to call the same libraries; the kernel's own unless given.
        """
        manifest, runners = self.manifest, self._runners if through is None else through
        with torch.inference_mode(), torch._C._DisableAutocast():
            inputs = [
                torch.zeros(
                    (manifest.hint_batch, *one.shape) if one.kind is KernelInputKind.ACTIVATION else one.shape,
                    dtype=dtype_named(one.dtype),
                    device=self.device,
                )
                for one in manifest.inputs
            ]
            outputs = runners[KernelFileRole.FORWARD].run(inputs)
            saved = [inputs[index] if is_input else outputs[index] for is_input, index in self.saved]
            gradient = torch.zeros_like(outputs[self.output_index])
            runners[KernelFileRole.BACKWARD].run([*saved, gradient])
            runners[KernelFileRole.PARAMETER_BACKWARD].run([*saved, gradient])


class Joined:
    """A kernel with the parameters and buffers of one module: computes what the module computes."""

    keeps_activation = False
    """Whether `recovered` is to be given the activation, which the kernel itself may not need."""

    def __init__(self, kernel: Kernel, module: nn.Module) -> None:
        """Join them; the module keeps its tensors, and must not exchange them for others.

        Raises:
            EsperdError: KERNEL_MISFIT when the module has not the tensors that the manifest names.
        """
        self.kernel = kernel
        self._tensors = _tensors_for(kernel.manifest, module)
        buffers = dict(module.named_buffers())
        self.mutated = [buffers[name] for name in kernel.manifest.mutated_buffers]

    def __call__(self, x: Tensor) -> Tensor:
        """The delta at activation x, which must fit; both passes are native."""
        x = x.contiguous()
        if x.data_ptr() % ALIGNMENT_BYTES:
            x = x.clone()
        delta: Tensor = _Native.apply(self, *[x if t is None else t for t in self._tensors])  # type: ignore[no-untyped-call]
        return delta

    def recovered(self, x: Tensor | None, g: Tensor, error: RuntimeError) -> Gradients:  # noqa: ARG002 - see `Attached`
        """The gradients when the native backward has raised; here there are none."""
        raise error


class _Native(torch.autograd.Function):
    """The kernel as one step of autograd. Inputs are saved as inputs, so that a change in place is found out."""

    @staticmethod
    def forward(ctx: Any, joined: Joined, *inputs: Tensor) -> Tensor:
        kernel = joined.kernel
        with torch._C._DisableAutocast():
            outputs = kernel.forward(list(inputs))
        if joined.mutated:
            for buffer, value in zip(joined.mutated, outputs, strict=False):  # the delta and what is saved come later
                buffer.copy_(value)
        saved = [inputs[index] if is_input else outputs[index] for is_input, index in kernel.saved]
        if joined.keeps_activation:
            saved.append(inputs[kernel.activation_index])
        ctx.save_for_backward(*saved)
        ctx.joined = joined
        return outputs[kernel.output_index]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        joined: Joined = ctx.joined
        kernel, saved = joined.kernel, ctx.saved_tensors
        needs_activation = ctx.needs_input_grad[1 + kernel.activation_index]
        run = kernel.backward if needs_activation else kernel.parameter_backward
        places = kernel.gradients if needs_activation else kernel.parameter_gradients
        try:
            with torch._C._DisableAutocast():
                found = run([*saved[: len(kernel.saved)], g.contiguous()])
        except torch.OutOfMemoryError:
            raise  # nothing is wrong with the kernel
        except RuntimeError as error:
            x = saved[-1] if joined.keeps_activation else None
            return (None, *joined.recovered(x, g, error))
        return (None, *(None if place < 0 else found[place] for place in places))


def _tensors_for(manifest: KernelManifest, module: nn.Module) -> list[Tensor | None]:
    """The inputs of the forward library in their order, None for the activation."""
    owned: dict[KernelInputKind, Mapping[str, Tensor]] = {
        KernelInputKind.PARAMETER: dict(module.named_parameters()),
        KernelInputKind.BUFFER: dict(module.named_buffers()),
    }
    tensors: list[Tensor | None] = []
    for one in manifest.inputs:
        if one.kind is KernelInputKind.ACTIVATION:
            tensors.append(None)
            continue
        tensor = owned[one.kind].get(one.name)
        if tensor is None or tuple(tensor.shape) != one.shape or tensor.dtype is not dtype_named(one.dtype):
            detail = f"the module has no {one.kind.name.lower()} {one.name} of {one.dtype} {one.shape}"
            raise EsperdError("KERNEL_MISFIT", artifact_id=manifest.artifact_id, detail=detail)
        if not tensor.is_contiguous():
            detail = f"{one.name} is not contiguous"
            raise EsperdError("KERNEL_MISFIT", artifact_id=manifest.artifact_id, detail=detail)
        tensors.append(tensor)
    return tensors
