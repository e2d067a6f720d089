"""What a setting's value must satisfy beyond its type: one table, by dotted name.

Pure data and pure functions, on any thread. A setting that is not in the table may have any value of its type.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from esperd.leyline.vocabulary import AlphaCurve, BlendMode, BlueprintTier, Isolation, TrainingMode

Check = Callable[[object], bool]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A rule and how a person reads it: "must be ..."."""

    holds: Check
    text: str


def between(low: float, high: float) -> Constraint:
    """Both ends included; NaN satisfies no range."""
    return Constraint(lambda value: isinstance(value, int | float) and low <= value <= high, f"{low:g} to {high:g}")


def at_least(low: float) -> Constraint:
    """Finite and not below `low`."""
    return Constraint(
        lambda value: isinstance(value, int | float) and low <= value < math.inf, f"{low:g} or more, and finite"
    )


def above(low: float) -> Constraint:
    """Finite and above `low`."""
    return Constraint(
        lambda value: isinstance(value, int | float) and low < value < math.inf, f"more than {low:g}, and finite"
    )


def one_of(*words: str) -> Constraint:
    """One of a closed set of words."""
    return Constraint(lambda value: value in words, "one of " + ", ".join(words))


def matching(pattern: str, text: str) -> Constraint:
    """A whole match of a regular expression."""
    compiled = re.compile(pattern)
    return Constraint(lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None, text)


def each(constraint: Constraint) -> Constraint:
    """Every item of a list satisfies `constraint`."""
    return Constraint(
        lambda values: isinstance(values, tuple) and all(constraint.holds(value) for value in values),
        f"a list of items that are {constraint.text}",
    )


def names_of(enum_type: type[BlendMode | TrainingMode | Isolation | AlphaCurve | BlueprintTier]) -> Constraint:
    """A word of the shared vocabulary; UNSPECIFIED would say nothing."""
    return one_of(*(member.name for member in enum_type if member.value != 0))


_COUNT = at_least(0)
_POSITIVE_COUNT = at_least(1)
_SHARE = between(0.0, 1.0)
_RATE = between(0.1, 1e9)
_PATH = matching(r"[^\x00\n]+", "a path")
_OPTIONAL_PATH = matching(r"[^\x00\n]*", "a path, or empty")

CONSTRAINTS: Mapping[str, Constraint] = {
    "run.task": matching(r"[\w.]+:\w+", "package.module:function"),
    "run.num_steps": _COUNT,
    # torch takes 64 bits; NumPy's legacy generator, which tasks may use, takes 32.
    "run.random_seed": between(0, 2**32 - 1),
    "run.directory": _PATH,
    "run.name": matching(r"[A-Za-z0-9._-]{0,64}", "at most 64 letters, digits, dots, dashes and underscores"),
    "run.num_threads": between(0, 4096),
    "run.wait_for_policy_s": _COUNT,
    "training.device": matching(r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu, cuda or cuda:N"),
    "training.amp": one_of("auto", "off", "bf16", "fp16"),
    "training.matmul_precision": one_of("highest", "high", "medium"),
    "training.clip_grad_norm": _COUNT,
    "training.log_every_steps": _POSITIVE_COUNT,
    "training.validate_every_steps": _COUNT,
    "growth.sites": each(matching(r"[^\s\x00]+", "module paths or globs")),
    "growth.max_live_seeds": _POSITIVE_COUNT,
    "growth.max_candidates_per_site": _POSITIVE_COUNT,
    "growth.max_fossils_per_site": _POSITIVE_COUNT,
    "growth.max_parameter_ratio": above(0),
    "growth.max_seed_flops_ratio": above(0),
    "growth.max_memory_bytes": _POSITIVE_COUNT,
    "growth.allow_tier": names_of(BlueprintTier),
    "growth.training_mode": names_of(TrainingMode),
    "growth.blend_mode": names_of(BlendMode),
    "growth.isolation": names_of(Isolation),
    "growth.rho": above(0),
    "growth.seed_lr_ratio": above(0),
    "growth.seed_warmup_steps": _COUNT,
    "growth.seed_clip_grad_norm": _COUNT,
    "growth.ema_decay": Constraint(
        lambda value: isinstance(value, int | float) and 0 <= value < 1, "at least 0 and below 1"
    ),
    "growth.alpha_curve": names_of(AlphaCurve),
    "growth.alpha_steps": _POSITIVE_COUNT,
    "growth.blend_alpha": Constraint(
        lambda value: isinstance(value, int | float) and 0 < value <= 1, "above 0 and at most 1"
    ),
    "growth.min_training_steps": _POSITIVE_COUNT,
    "growth.max_training_steps": _POSITIVE_COUNT,
    "growth.min_dwell_steps": _POSITIVE_COUNT,
    "growth.max_dwell_steps": _POSITIVE_COUNT,
    "growth.embargo_steps": _COUNT,
    "growth.embargo_s": _COUNT,
    "growth.probe_units": at_least(2),
    "growth.probe_every_steps": _POSITIVE_COUNT,
    "growth.probe_budget": _SHARE,
    "growth.max_probe_units": at_least(2),
    "growth.wanted_gain_ratio": _COUNT,
    "growth.non_inferiority_ratio": _COUNT,
    "growth.rent": _COUNT,
    # At a half a test is no better than a coin, and the bounds on evidence are not defined.
    "growth.error_level": Constraint(
        lambda value: isinstance(value, int | float) and 0 < value < 0.5, "above 0 and below 0.5"
    ),
    "growth.max_output_ratio": above(0),
    "growth.max_step_time_ratio": at_least(1),
    "growth.isolation_check_every_steps": _POSITIVE_COUNT,
    "growth.max_isolation_violations": _POSITIVE_COUNT,
    "budgets.window_steps": at_least(2),
    "budgets.slow_ratio": above(1),
    "budgets.misses_to_elevate": _POSITIVE_COUNT,
    "budgets.healthy_windows_to_clear": _POSITIVE_COUNT,
    "budgets.policy_answer_s": above(0),
    "budgets.missed_deadlines": _POSITIVE_COUNT,
    "budgets.step_cap_s": _COUNT,
    "budgets.anomaly_window": at_least(2),
    "budgets.full_rollback_s": above(0),
    "budgets.max_rollbacks": _POSITIVE_COUNT,
    "control.listen": each(
        matching(r"unix:[^\x00\n]+|(tls:)?([^\s:]+|\[[0-9A-Fa-f:]+\]):\d{1,5}", "unix:PATH, tls:HOST:PORT or HOST:PORT")
    ),
    "control.tls_certificate": _OPTIONAL_PATH,
    "control.tls_private_key": _OPTIONAL_PATH,
    "control.tls_client_ca": _OPTIONAL_PATH,
    "control.keyring": _OPTIONAL_PATH,
    "control.daemon_id": matching(r"[A-Za-z0-9._-]{0,128}", "at most 128 letters, digits, dots, dashes, underscores"),
    "control.command_box_capacity": between(1, 1 << 20),
    "control.telemetry_ring_capacity": between(1, 1 << 24),
    "control.frame_interval_s": between(0.001, 60),
    "control.training_share": Constraint(
        lambda value: isinstance(value, int | float) and 0 < value <= 1, "above 0 and at most 1"
    ),
    "control.max_concurrent_calls": between(1, 1 << 20),
    "control.max_streams": between(1, 1 << 20),
    "control.max_connections": between(1, 1 << 20),
    "control.max_reads_per_s": _RATE,
    "control.max_commands_per_s": _RATE,
    "control.max_decisions_per_s": _RATE,
    "control.max_emergencies_per_s": _RATE,
    "control.max_admin_per_s": _RATE,
    "control.socket_group": matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?|", "the name of a group, or empty"),
    "control.drain_s": between(0, 3600),
    "checkpoints.directory": _OPTIONAL_PATH,
    "checkpoints.every_steps": _COUNT,
    "checkpoints.keep": _POSITIVE_COUNT,
    "checkpoints.keep_every_steps": _COUNT,
    "checkpoints.snapshot_every_steps": _COUNT,
    "checkpoints.snapshots": between(0, 64),
    "checkpoints.max_snapshot_bytes": _COUNT,
    "checkpoints.good_after_steps": _POSITIVE_COUNT,
    "policy.packet_every_steps": _COUNT,
    "log.level": one_of("debug", "info", "warning", "error"),
    "log.format": one_of("auto", "console", "json"),
}
