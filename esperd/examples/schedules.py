"""The learning-rate schedule of the built-in tasks: warm up, hold, fall.

A seed is best asked for while the rate holds, so the stable phase is long.
"""

import torch
from torch.optim.lr_scheduler import LambdaLR

WARMUP_STEPS = 50
DECAY_SHARE = 0.3
"""Share of the run, at its end, over which the rate falls linearly to 0."""


def warm_stable_decay(optimizer: torch.optim.Optimizer, num_steps: int) -> LambdaLR:
    """Warm-up over 50 steps, a stable phase, and a linear decay over the last 30 % of `num_steps` (0: no decay)."""
    decay_steps = int(num_steps * DECAY_SHARE)

    def level(step: int) -> float:
        rising = min(1.0, (step + 1) / WARMUP_STEPS)
        if num_steps == 0 or decay_steps == 0:
            return rising
        return min(rising, max(0.0, (num_steps - step) / decay_steps))

    return LambdaLR(optimizer, level)
