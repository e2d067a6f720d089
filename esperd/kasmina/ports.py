"""What the seed executor needs from the trainer, and what it answers: the seam between Kasmina and Tolaria.

Training thread only. Kasmina asks, Tolaria owns: optimizers, gradients scalers and the data stay with the trainer.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from esperd.leyline.views import NoticeEvent, TransitionEvent

Batch = tuple[Any, Any]
"""(inputs, targets), already on the device."""


class SeedOptimizers(Protocol):
    """The trainer's side of parameter ownership; every parameter is in exactly one group, by identity."""

    def create_seed(self, seed_id: int, parameters: Sequence[nn.Parameter]) -> None:
        """Give a new seed an optimizer of its own (the host's class and defaults, its own warm-up)."""
        ...

    def step_seed(self, seed_id: int, loss: torch.Tensor | None, alpha: float | None = None) -> float | torch.Tensor:
        """Backward `loss` if given (its own scaler), clip by the seed's own norm, step, clear the gradients.

        The backward names the seed's parameters as its `inputs`, so that a seed that has got hold of a host parameter
        cannot write its gradient. Without `loss` the gradients are there already, scaled as the host's backward was.
        `alpha` is given while the seed blends (adaptive clipping).

        Returns the gradient norm before clipping, as a number or as a 0-dim tensor that nobody has read; a norm that is
        not finite skips the step and is returned as it is.
        """
        ...

    def zero_seed(self, seed_id: int) -> None:
        """Clear the seed's gradients without a step."""
        ...

    def drop_seed(self, seed_id: int) -> None:
        """Forget a culled seed's optimizer and its state."""
        ...

    def merge_seed(self, seed_id: int) -> None:
        """Move a fossilized seed's parameters with their optimizer state into the host's optimizer."""
        ...

    def replace_seeds(
        self, live: Mapping[int, Sequence[nn.Parameter]], merged: Mapping[int, Sequence[nn.Parameter]]
    ) -> None:
        """Forget every seed and take these: live ones with new optimizers, fossilized ones in the host's optimizer.

        For loading a state: the optimizers' own state, options and order of parameters are loaded afterwards.
        """
        ...

    def owned_by(self, seed_id: int) -> tuple[nn.Parameter, ...]:
        """The parameters that the seed's optimizer holds now."""
        ...

    def learning_rate(self, seed_id: int) -> float:
        """The learning rate that the seed's next step uses."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """The live model as Kasmina may use it."""

    model: nn.Module
    device: torch.device
    forward: Callable[[Any], torch.Tensor]
    """Inputs to output, under the trainer's autocast, in whatever mode the modules are in."""
    loss: Callable[[torch.Tensor, Any], torch.Tensor]
    """(output, targets) to the scalar training loss."""
    unit_losses: Callable[[torch.Tensor, Any], torch.Tensor]
    """(output, targets) to one loss per unit (sample or sequence), float32, shape (units,)."""
    probe_batches: Callable[[int], Sequence[Batch]]
    """(num_units) to held-out batches on the device, drawn without replacement from the probe data with a stream of
    its own; reshuffled only when exhausted. Never training data."""
    sample_inputs: Callable[[], Batch]
    """A small training-like batch for dry runs; drawing it disturbs neither the data order nor any RNG."""
    step_flops: Callable[[], float]
    """FLOPs of one host training step as measured on its batch; 0 before the first."""
    batch_units: Callable[[], int] = lambda: 0
    """Samples in a batch of training; 0 where that is not known."""
    global_step: Callable[[], int] = lambda: 0
    """Steps done, for whatever is told in the middle of one."""


Report = Callable[[TransitionEvent | NoticeEvent], None]
"""Sends an event up the bridge; never blocks."""


class StepAdvice(enum.Enum):
    """What the guard says about the host's optimizer step after the backward."""

    STEP = "step"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who asked for a change: goes with every transition."""

    cause: str
    """Command id, `auto`, or the rule that acted."""
    principal: str = ""
