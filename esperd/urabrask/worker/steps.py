"""Trials of use: optimizer steps beside the eager module, frozen parameters, other threads, several seeds, no numbers.

The validator's own process.
"""

import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

from esperd.kasmina.kernels.kernel import Joined, Kernel
from esperd.urabrask.worker.channel import Channel
from esperd.urabrask.worker.equality import Case, Error, Passed, run, worst_error
from esperd.urabrask.worker.specimen import Specimen

LEARNING_RATE = 1e-3
SEED = 3


def training(specimen: Specimen, kernel: Kernel, channel: Channel, num_steps: int) -> None:
    """How far the losses of two trainings are from each other that differ in nothing but the kernel."""
    eager, compiled = specimen.fresh_module(SEED), specimen.fresh_module(SEED)
    ours = _losses(specimen, compiled, Joined(kernel, compiled), num_steps)
    theirs = _losses(specimen, eager, eager, num_steps)
    scale = max(abs(loss) for loss in theirs)
    differences = [abs(a - b) / scale if a == a and b == b else float("inf") for a, b in zip(ours, theirs, strict=True)]
    worst = max(range(num_steps), key=differences.__getitem__)
    channel.measured("training", differences[worst], f"at step {worst + 1} of {num_steps}")


def frozen_parameters(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """Parameters that are not to be trained get no gradient, and the others get theirs."""
    module = specimen.module(SEED)
    names = [name for name, _ in module.named_parameters()]
    case = Case(specimen.manifest.hint_batch, SEED)
    x = specimen.activation(case.batch, SEED)
    wrong = []
    for frozen in names[:1]:
        module.get_parameter(frozen).requires_grad_(False)
        got = run(specimen, module, Joined(kernel, module), x, case)
        wrong += [name for name in names if (name in got.parameter_gradients) == (name == frozen)]
        module.get_parameter(frozen).requires_grad_(True)
    channel.measured("frozen_parameters", len(wrong), ", ".join(wrong))


def other_thread(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """In another thread than the one that opened it, it computes what it computes."""
    module, case = specimen.module(SEED), Case(specimen.manifest.hint_batch, SEED)
    found: list[Error] = []
    thread = threading.Thread(
        target=lambda: found.append(worst_error(specimen, module, Joined(kernel, module), case)), name="trial"
    )
    thread.start()
    thread.join()
    error = found[0] if found else Error(float("inf"), 0.0)
    channel.measured("other_thread", error.value, floor=error.floor)


def shared(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """Two seeds on one kernel: whoever goes forward in between changes nothing."""
    case = Case(specimen.manifest.hint_batch, SEED)
    one, other = specimen.module(SEED), specimen.module(SEED + 1)
    joined, disturbing = Joined(kernel, one), Joined(kernel, other)

    def with_another_in_between(x: Tensor) -> Tensor:
        delta = joined(x)
        disturbing(specimen.activation(case.batch, SEED + 2))
        return delta

    error = worst_error(specimen, one, with_another_in_between, case)
    channel.measured("shared", error.value, floor=error.floor)


def not_a_number(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """What is no number comes out as none: a loss that should have told of it would not."""
    module, case = specimen.module(SEED), Case(specimen.manifest.hint_batch, SEED)
    lost = []
    for value in (float("nan"), float("inf"), float("-inf")):
        x = specimen.activation(case.batch, SEED)
        x[0] = value
        eager = run(specimen, module, module, x, case)
        compiled = run(specimen, module, Joined(kernel, module), x, case)
        lost += [f"{name} of {value}" for name in _lost(eager, compiled)]
    channel.measured("not_a_number", len(lost), "; ".join(lost))


def _lost(eager: Passed, compiled: Passed) -> list[str]:
    pairs = {
        "output": (eager.output, compiled.output),
        **{name: (g, compiled.parameter_gradients[name]) for name, g in eager.parameter_gradients.items()},
    }
    return [name for name, (must, got) in pairs.items() if not must.isfinite().all() and got.isfinite().all()]


def _losses(specimen: Specimen, module: nn.Module, function: Callable[[Tensor], Tensor], num_steps: int) -> list[float]:
    """Losses of learning to undo a fixed rotation of the numbers, at two batch sizes in turn."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
    batches = (specimen.manifest.hint_batch, specimen.batches()[-2] if len(specimen.batches()) > 2 else 1)
    losses = []
    for step in range(num_steps):
        batch = max(specimen.manifest.min_batch, batches[step % 2])
        x = specimen.activation(batch, 100 + step % 8)
        optimizer.zero_grad()
        with specimen.conditions():
            loss = (x + function(x) - x.roll(1, -1)).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
