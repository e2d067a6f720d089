"""Watches every step of a blend and says which seed must go, before it can do lasting harm.

Training thread only. Three rules in this order (design 03, Guard while blending): a delta that is not finite (the
hook has already let the activation through untouched); a batch loss out of proportion, confirmed by the
counterfactual on the same batch, whose optimizer step is then skipped; slow harm seen by small paired probes. One
device read a step, none while no seed blends.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from esperd.kasmina.loss_watch import LossWatch, confirms_harm
from esperd.kasmina.ports import Batch, StepAdvice
from esperd.kasmina.probes import OFF, Prober, Variant
from esperd.kasmina.seed import Seed
from esperd.kasmina.slot import Pass, Slot
from esperd.leyline.vocabulary import BlendMode

TOLERATED_HARM = 0.02
"""Share of the loss that a blending seed may cost on held-out data before the guard takes it out.

The raw iterate of a seed that is worth a tenth of a bit later can cost a hundredth now (growth science, section 4);
what is merely useless is for the gates to judge."""


@dataclass(frozen=True, slots=True)
class Trip:
    """A seed that the guard wants gone, and why."""

    seed: Seed
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard says of one step."""

    advice: StepAdvice
    trips: tuple[Trip, ...]


class Guard:
    """The guard over all blending seeds of a run."""

    def __init__(self, model: nn.Module, prober: Prober) -> None:
        self.watch = LossWatch()
        self._prober = prober
        self._unread: deque[Tensor] = deque(maxlen=50)
        self._buffers = _MovingBuffers(model)

    def before_step(self) -> None:
        """Remember the host's buffers, so that a skipped step leaves nothing in them."""
        self._buffers.remember()

    def note(self, loss: Tensor) -> None:
        """Keep the loss of a step in which nothing blends, unread."""
        self._unread.append(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """The window of losses, those not yet read from the device, and which of the host's buffers move."""
        unread = [loss.float().reshape(()) for loss in self._unread]
        return {
            "losses": self.watch.state(),
            "unread": torch.stack(unread) if unread else None,
            "moved": self._buffers.moved_so_far(),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `state_dict` gave, on the host's device."""
        self.watch = LossWatch(state["losses"])
        self._unread.clear()
        if state["unread"] is not None:
            self._unread.extend(state["unread"].to(device, copy=True).unbind())
        self._buffers.begin_again(state["moved"])

    def judge(self, slots: Sequence[Slot], batch: Batch, loss: Tensor) -> Verdict:
        """Look at the step just done: the one device read of a blending step."""
        self._read_backlog()
        records = [record for slot in slots for record in slot.passes]
        value, flags = _read(loss, records)
        trips = self._faults(records, flags)
        confirmed = self._confirmed(slots, batch, value, {trip.seed.seed_id for trip in trips})
        if confirmed:
            self._buffers.restore()
            return Verdict(StepAdvice.SKIP, (*trips, *confirmed))
        self.watch.observe(value)
        return Verdict(StepAdvice.STEP, tuple(trips))

    @staticmethod
    def take(seed: Seed, without: Sequence[float], with_seed: Sequence[float], tolerance: float) -> Trip | None:
        """Add the differences of a probe to the seed's window and look; trips when harm beyond `tolerance` is sure.

        Without the tolerance (in the unit of the loss) a sound seed at alpha 0.01, whose effect of either sign is
        next to nothing, was seen to trip: many looks at 99 % find one that is below 0.
        """
        seed.probe_watch.observe([a - b for a, b in zip(without, with_seed, strict=True)])
        if seed.probe_watch.upper >= -tolerance:
            return None
        return Trip(seed, "guard:probe", f"worth at most {seed.probe_watch.upper:.4g} on held-out data, at 99 %")

    def _faults(self, records: Sequence[Pass], flags: Sequence[bool]) -> list[Trip]:
        trips = []
        for record, finite in zip(records, flags, strict=True):
            if record.fault:
                trips.append(Trip(record.seed, "seed:raised", record.fault))
            elif not finite and bool(torch.isfinite(record.x).all()):
                trips.append(Trip(record.seed, "guard:non_finite", "its output is not finite"))
        return trips

    def _confirmed(self, slots: Sequence[Slot], batch: Batch, loss: float, gone: set[int]) -> list[Trip]:
        """The seeds to blame for a suspicious loss: the same batch without each of them decides."""
        if not self.watch.is_suspicious(loss):
            return []
        suspects = [(slot, slot.grafted) for slot in slots if slot.grafted is not None]
        trips = []
        with self._buffers.as_before():
            for slot, seed in suspects:
                if seed.seed_id in gone:
                    continue
                without, with_seed = self._prober.losses(slot, seed, [OFF, _as_trained(seed)], [batch])
                if len(without) >= 2 and confirms_harm(with_seed, without):
                    detail = f"batch loss {loss:.4g} is beyond {self.watch.limit:.4g}, and not without the seed"
                    trips.append(Trip(seed, "guard:loss", detail))
        return trips

    def _read_backlog(self) -> None:
        if self._unread:
            for loss in torch.stack([loss.float() for loss in self._unread]).tolist():
                self.watch.observe(loss)
            self._unread.clear()


class _MovingBuffers:
    """Copies of those buffers of the host that its forward writes (running statistics).

    Large constant buffers (masks, rotary tables) are copied once, found not to move, and left alone from then on.
    """

    def __init__(self, model: nn.Module) -> None:
        self._known = list(model.buffers())
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
        # The kernels of these write their statistics without moving the version counter.
        self._always = {id(buffer) for norm in norms for buffer in norm.buffers()}
        self._moved: list[bool] | None = None
        """Which of them have moved since the first step that was looked at; None before it."""
        self._versions: list[int] | None = None
        """Of the last look; None when nothing can be compared with it."""
        self._moving: list[Tensor] = []
        self._copies: list[Tensor] = []

    def remember(self) -> None:
        if self._moved is None:
            self._moved = [id(buffer) in self._always for buffer in self._known]
            self._moving = list(self._known)
        else:
            self._moved = self.moved_so_far() or self._moved
            self._moving = [buffer for buffer, moved in zip(self._known, self._moved, strict=True) if moved]
        self._versions = [buffer._version for buffer in self._known]
        self._copies = [buffer.detach().clone() for buffer in self._moving]

    def moved_so_far(self) -> list[bool] | None:
        """Which buffers have ever moved, up to now; what has moved once is taken to move."""
        if self._moved is None or self._versions is None:
            return self._moved
        pairs = zip(self._known, self._versions, self._moved, strict=True)
        return [moved or buffer._version != version for buffer, version, moved in pairs]

    def begin_again(self, moved: list[bool] | None) -> None:
        """Go on from what `moved_so_far` gave; that loading writes every buffer does not count."""
        self._moved = None if moved is None or len(moved) != len(self._known) else list(moved)
        self._versions = None
        self._moving, self._copies = [], []

    def restore(self) -> None:
        with torch.no_grad():
            for buffer, copy in zip(self._moving, self._copies, strict=True):
                buffer.copy_(copy)

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """The buffers as they were before the step, during the body: a bad step may have spoiled them."""
        now = [buffer.detach().clone() for buffer in self._moving]
        self.restore()
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(self._moving, now, strict=True):
                    buffer.copy_(value)


def _as_trained(seed: Seed) -> Variant:
    """The seed as the samples of a training batch meet it: under drop-blend those that take it take all of it.

    Its expectation at a small alpha would hide what drives the host's loss up.
    """
    return Variant(1.0 if seed.plan.blend_mode is BlendMode.BERNOULLI else seed.alpha_value)


def _read(loss: Tensor, records: Sequence[Pass]) -> tuple[float, list[bool]]:
    """Loss and finiteness of every pass, in one read; output ratios go to the seeds."""
    values = [loss.detach().float().reshape(())]
    measured = [record for record in records if record.output_ratio is not None]
    for record in records:
        fine = record.delta_finite is not None and record.mixed_finite is not None
        values.append((record.delta_finite & record.mixed_finite).float() if fine else torch.ones_like(values[0]))  # type: ignore[operator]
    values.extend(record.output_ratio.float() for record in measured if record.output_ratio is not None)
    numbers = torch.stack(values).tolist()
    for record, ratio in zip(measured, numbers[1 + len(records) :], strict=True):
        record.seed.health.read_output_ratio = ratio
        record.seed.health.max_output_ratio = max(record.seed.health.max_output_ratio, ratio)
    return numbers[0], [flag == 1.0 for flag in numbers[1 : 1 + len(records)]]
