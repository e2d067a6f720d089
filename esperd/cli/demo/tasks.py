"""What the demo can train: the task, where it may grow, and the static model that was chosen well.

Pure data. The numbers are those of the growth research: a host that is too small on purpose, grown in the stable
phase of its learning rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Option = str | int | float | bool


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One task of the demo."""

    name: str
    spec: str
    """`package.module:function`; takes `num_steps` and `data_seed` besides its options."""
    title: str
    num_steps: int
    sites: tuple[str, ...]
    options: Mapping[str, Option] = field(default_factory=dict)
    static_options: Mapping[str, Option] = field(default_factory=dict)
    """Options of the well-chosen static model, on top of `options`."""
    static_title: str = ""
    growth: Mapping[str, Option] = field(default_factory=dict)
    """`[growth]` settings that differ from the defaults."""
    packet_every_steps: int = 25
    budget: str = "steps"
    """What the heuristic takes to be scarce."""


DIGITS = DemoTask(
    name="digits",
    spec="esperd.examples.digits:build",
    title="digits: a convolutional network that is too small, on 1,000 8x8 images",
    num_steps=1500,
    sites=("block1", "block2"),
    static_options={"width1": 10, "width2": 20},
    static_title="10 and 20 channels from the start",
    growth={"min_training_steps": 150},
)
"""Growth at about a quarter of the run, 150 steps of TRAINING and 150 of blending (growth science, 3a)."""

BYTES = DemoTask(
    name="bytes",
    spec="esperd.examples.bytes:build",
    title="bytes: a one-layer transformer on the standard library's own text, saturated",
    num_steps=5000,
    sites=("blocks.0",),
    static_options={"num_layers": 4},
    static_title="4 layers from the start",
    growth={"min_training_steps": 100, "alpha_steps": 100},
    packet_every_steps=50,
)
"""The saturated regime, where growing beats training the host for longer (growth science, 3c)."""

TASKS: Mapping[str, DemoTask] = {task.name: task for task in (DIGITS, BYTES)}
