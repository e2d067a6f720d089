"""The seed executor: every seed of the run, its site, its stage, and what each training step asks of it.

Training thread only. The trainer calls it at four places of a step and at the safe point; it knows no optimizer,
no data loader, no thread and no wire. Order of calls in one step, all skipped while `active` is False:
`before_step`, (host forward, loss, backward), `after_backward`, (host clip and step), `after_step`, commands.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from esperd.config.settings import GrowthSettings
from esperd.kasmina.ports import Attribution, Batch, Host, Report, SeedOptimizers, StepAdvice
from esperd.leyline.commands import SeedCommand
from esperd.leyline.views import SeedView, SiteView


class SeedExecutor:
    """Grows seeds in a live model (design 03)."""

    extra_flops: float
    """FLOPs spent on seeds, shadow passes and probes so far."""

    def __init__(
        self,
        *,
        host: Host,
        site_patterns: Sequence[str],
        settings: GrowthSettings,
        registry: Any,
        optimizers: SeedOptimizers,
        report: Report,
        clock: Callable[[], float],
        random_seed: int,
    ) -> None:
        """Resolve the sites by module path or glob; EsperdError SITE_PATTERN if a pattern names none.

        `clock` gives Unix seconds: for the embargo's seconds, the dates of events and G3's step-time ratio only.
        """

    @property
    def active(self) -> bool:
        """Whether any seed is live; while False the trainer calls none of the per-step methods."""
        raise NotImplementedError

    def before_step(self, step: int) -> None:
        """Advance alpha and arm the hooks; before the host's forward of optimizer step `step` (from 0)."""

    def after_backward(self, step: int, batch: Batch, loss: torch.Tensor) -> StepAdvice:
        """Guard, seeds' own losses, backward and step; after the host's backward, before its clip and step.

        Call it outside autocast. `loss` is the host's unscaled scalar loss of `batch`.
        """
        raise NotImplementedError

    def after_step(self, step: int) -> bool:
        """At the safe point: EMA, dwell, probes, gates, auto-advance, culls; True when the visible state changed."""
        raise NotImplementedError

    def tick_idle(self, step: int) -> bool:
        """Embargo and reset bookkeeping while no seed is live; cheap; True when the visible state changed."""
        raise NotImplementedError

    def apply(self, command: SeedCommand, step: int, by: Attribution) -> int:
        """Carry out one command at the safe point; returns the seed's id.

        Raises EsperdError of the catalogue; nothing has changed when it raises.
        """
        raise NotImplementedError

    def hold(self, cause: str) -> None:
        """Conservative mode: no new seeds, no auto-advance into BLENDING; guard and gates go on."""

    def release(self) -> None:
        """End the conservative mode."""

    def seeds(self) -> tuple[SeedView, ...]:
        """Every seed that is live, fossilized, or not yet reset after a cull."""
        raise NotImplementedError

    def sites(self) -> tuple[SiteView, ...]:
        """Every site with its offers."""
        raise NotImplementedError

    def grown_parameters(self) -> list[nn.Parameter]:
        """The parameters of fossilized seeds, in the order of fossilization."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: weights, EMA, lifecycle, alpha, evidence, embargoes, streams."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Rebuild from `state_dict`; the trainer restores the seeds' optimizers afterwards."""
