"""Hand-made moments of a run for the policy's tests."""

import math
from collections.abc import Sequence

from esper.tamiyo.observation import Cost, Gain, Observation, Offer, Point, Seed, Site

CONV_OFFERS = (
    Offer("residual_conv", Cost(4_000, 74_000, 148_000), 0.3),
    Offer("conv1x1", Cost(500, 8_000, 16_000), 0.2),
    Offer("depthwise", Cost(120, 2_000, 4_000), 0.2),
    Offer("squeeze_excite", Cost(60, 500, 1_000), 0.2),
)
BATCH = 64
HOST_STEP_FLOPS = 64 * 42_000.0


def site(name: str = "conv1", *, vacant: bool = True, rank: int = 4, offers: Sequence[Offer] = CONV_OFFERS) -> Site:
    shape = {4: (BATCH, 8, 4, 4), 3: (BATCH, 64, 32), 2: (BATCH, 32)}[rank]
    return Site(name, vacant, shape, offers=tuple(offers))


def flat(step: int, loss: float = 0.5, every: int = 25, since: int = 0) -> tuple[Point, ...]:
    """A history without any progress."""
    return tuple(Point(s, loss, loss, loss, "stable") for s in range(since, step + 1, every))


def falling(step: int, share_per_step: float, every: int = 25) -> tuple[Point, ...]:
    """A history whose loss falls by this share of itself each step."""
    losses = [(s, math.exp(-share_per_step * s)) for s in range(0, step + 1, every)]
    return tuple(Point(s, loss, loss, loss, "stable") for s, loss in losses)


def moment(step: int = 500, **changes: object) -> Observation:
    """A plateau in the stable phase of a run of 1500 steps, with two vacant sites."""
    values: dict[str, object] = {
        "run_id": "run-1",
        "step": step,
        "num_steps_total": 1500,
        "lr_phase": "stable",
        "revision": step,
        "probe_loss": 0.5,
        "validation_loss": 0.5,
        "training_loss": 0.5,
        "host_step_flops": HOST_STEP_FLOPS,
        "batch_size": BATCH,
        "sites": (site("conv1"), site("conv2")),
        "history": flat(step),
        "principal": "tamiyo",
    }
    return Observation(**{**values, **changes})  # type: ignore[arg-type]


def seed(seed_id: str, stage: str = "TRAINING", **changes: object) -> Seed:
    values: dict[str, object] = {
        "seed_id": seed_id,
        "stage": stage,
        "site": "conv1",
        "blueprint_id": "residual_conv",
        "stage_steps": 200,
        "germinated_step": 400,
        "learning_rate": 0.003,
        "cost": Cost(4_000, 74_000, 148_000),
        "requested_by": "tamiyo",
        "risk": 0.3,
    }
    return Seed(**{**values, **changes})  # type: ignore[arg-type]


def pre_blend(mean: float, lower: float, upper: float, num_samples: int = 256) -> tuple[Gain, ...]:
    return (Gain("pre_blend_gain", mean, lower, upper, num_samples),)
