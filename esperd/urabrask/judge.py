"""What measurements of a kernel mean: a report with every check, a risk, a hazard band and a handling class.

Any thread; pure. It is told what the validator's process said and how that ended, and trusts neither: what was not
measured has not passed. Design 05, Urabrask.
"""

import enum
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from esperd.config.settings import KernelSettings
from esperd.leyline.kernels import KernelCheck, KernelManifest, KernelReport
from esperd.leyline.vocabulary import HandlingClass, HazardBand
from esperd.urabrask.process import Ending

VERSION = "1"
NEAR_LIMIT = 0.8
"""A harmful measurement beyond this share of its limit makes a kernel MEDIUM."""
USELESS_RISK, PASSED_RISK = 0.6, 0.4
MAX_LEAK_BYTES_PER_RUN = 256.0
MAX_LEAK_BYTES_PER_CYCLE = 64.0 * 1024
MAX_LOSS_DIFFERENCE, MAX_LOSS_DIFFERENCE_HALF = 1e-3, 5e-2
"""Of two training curves, relative: optimizer steps magnify rounding, so this is wider than one step's limit."""
_HALF = ("bfloat16", "float16")
MAX_RESIDENT_BYTES = 2.0**62
"""What a process says that it takes is believed no further."""
MAX_FAILED = 8
"""Trials that one process says to have failed, in its report: it can fail one, and one who lies may say so for ever."""
_WORDS = 400


class Meaning(enum.Enum):
    """What it means when a check fails."""

    HARMFUL = enum.auto()
    """It computes something else, crashes, leaks, or asks for what no kernel needs."""
    USELESS = enum.auto()
    """Nobody is harmed, nobody is served."""


Limit = Callable[[KernelSettings, bool], float]
"""From the settings and whether it computes in 16 bits."""


def _none_of_it(_settings: KernelSettings, _is_half: bool) -> float:
    return 0.0


def _error(settings: KernelSettings, is_half: bool) -> float:
    return settings.max_error_half if is_half else settings.max_error


def _loss_difference(_settings: KernelSettings, is_half: bool) -> float:
    return MAX_LOSS_DIFFERENCE_HALF if is_half else MAX_LOSS_DIFFERENCE


@dataclass(frozen=True, slots=True)
class Rule:
    """One measurement that every kernel needs, and the most that it may be."""

    name: str
    unit: str
    limit: Limit
    meaning: Meaning = Meaning.HARMFUL


RULES: Sequence[Rule] = (
    Rule("imports", "findings", _none_of_it),
    Rule("fits", "differences", _none_of_it, Meaning.USELESS),
    Rule("confinement", "refusals", _none_of_it, Meaning.USELESS),  # of the system: then nothing is opened
    Rule("load", "ms", lambda settings, _: settings.max_load_ms, Meaning.USELESS),
    Rule("compiler_modules", "modules", _none_of_it),
    Rule("output", "relative error", _error),
    Rule("activation_gradient", "relative error", _error),
    Rule("parameter_gradients", "relative error", _error),
    Rule("parameter_gradients_alone", "relative error", _error),
    Rule("buffers", "relative error", _error),
    Rule("layouts", "relative error", _error),
    Rule("refused_inputs", "accepted inputs", _none_of_it),
    Rule("fallbacks", "native calls", _none_of_it),
    Rule("not_a_number", "lost values", _none_of_it),
    Rule("training", "relative difference of losses", _loss_difference),
    Rule("frozen_parameters", "changed parameters", _none_of_it),
    Rule("other_thread", "relative error", _error),
    Rule("shared", "relative error", _error),
    Rule("leak", "bytes a run", lambda *_: MAX_LEAK_BYTES_PER_RUN),
    Rule("leak_reopened", "bytes a cycle", lambda *_: MAX_LEAK_BYTES_PER_CYCLE),
    Rule("step_ratio", "of eager", lambda settings, _: settings.max_step_ratio, Meaning.USELESS),
    Rule("parameter_step_ratio", "of eager", lambda settings, _: settings.max_step_ratio, Meaning.USELESS),
)
SURVIVED = "survived"
_BY_NAME = {rule.name: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class _Measured:
    value: float
    floor: float
    """Up to this it means nothing, whatever the limit."""
    detail: str

    def share(self, limit: float) -> float:
        """How much of what it may be it is; of several under one name the largest share counts."""
        allowed = max(limit, self.floor)
        return self.value / allowed if allowed > 0 else self.value


def began(ending: Ending) -> bool:
    """Whether the process came as far as looking at the kernel; before that nothing is the kernel's fault."""
    return any(message.get("kind") == "began" for message in ending.messages)


def judge(manifest: KernelManifest, ending: Ending, settings: KernelSettings, create_unix_s: float) -> KernelReport:
    """The report on a kernel."""
    measured = _measurements(ending.messages)
    seen = [*_measured_checks(measured, settings, _is_half(manifest)), *_failed_trials(ending), _survived(ending)]
    is_done = ending.messages[-1:] != () and ending.messages[-1].get("kind") == "done"
    if is_done or all(check.passed for check in seen):  # only a failed check excuses from all others
        seen += [
            KernelCheck(rule.name, False, detail="it was not measured") for rule in RULES if rule.name not in measured
        ]
    checks = tuple(seen)
    band = _band(checks)
    return KernelReport(
        artifact_id=manifest.artifact_id,
        validator_version=VERSION,
        checks=checks,
        load_ms=_value(measured, "load"),
        first_ms=_value(measured, "first_run"),
        step_ratio=_value(measured, "step_ratio"),
        parameter_step_ratio=_value(measured, "parameter_step_ratio"),
        max_error=max(_value(measured, rule.name) for rule in RULES if rule.limit is _error),
        resident_bytes=int(min(max(0.0, _value(measured, "resident")), MAX_RESIDENT_BYTES)),
        risk_score=_risk(checks),
        hazard_band=band,
        handling_class=_HANDLING[band],
        create_unix_s=create_unix_s,
    )


_HANDLING: Mapping[HazardBand, HandlingClass] = {
    HazardBand.LOW: HandlingClass.STANDARD,
    HazardBand.MEDIUM: HandlingClass.RESTRICTED,
    HazardBand.HIGH: HandlingClass.QUARANTINE,
    HazardBand.CRITICAL: HandlingClass.QUARANTINE,
}


def _measurements(messages: Sequence[Mapping[str, Any]]) -> dict[str, list[_Measured]]:
    """By name everything that was said."""
    found: dict[str, list[_Measured]] = {}
    for message in messages:
        name = message.get("name")
        if message.get("kind") != "measured" or not isinstance(name, str):
            continue
        # What is no number is worse than any, and no sum or maximum may swallow it; no floor excuses it.
        floor = _number(message.get("floor", 0.0), math.inf)
        now = _Measured(
            _number(message.get("value"), math.inf),
            floor if math.isfinite(floor) else 0.0,
            _words(message.get("detail")),
        )
        found.setdefault(name, []).append(now)
    return found


def _number(said: object, otherwise: float) -> float:
    """What the process said as a number; `otherwise` when it is none, or beyond every measure."""
    try:
        number = float(said) if isinstance(said, int | float) else math.nan
    except OverflowError:
        number = math.nan
    return otherwise if math.isnan(number) else number


def _words(said: object) -> str:
    """What the process said in words, as text that a report can hold."""
    return str("" if said is None else said)[:_WORDS].encode(errors="replace").decode()


def _measured_checks(
    measured: Mapping[str, Sequence[_Measured]], settings: KernelSettings, is_half: bool
) -> Iterator[KernelCheck]:
    for rule in RULES:
        if rule.name in measured:
            limit = rule.limit(settings, is_half)
            worst = max(measured[rule.name], key=partial(_Measured.share, limit=limit))
            limit = max(limit, worst.floor)
            yield KernelCheck(rule.name, worst.value <= limit, worst.value, limit, rule.unit, worst.detail)


def _failed_trials(ending: Ending) -> Iterator[KernelCheck]:
    failed = [message for message in ending.messages if message.get("kind") == "failed"]
    for message in failed[:MAX_FAILED]:
        yield KernelCheck(_words(message.get("trial"))[:64], False, detail=_words(message.get("detail")))


def _survived(ending: Ending) -> KernelCheck:
    """Whether the process came to its own end."""
    last = ending.messages[-1].get("kind") if ending.messages else ""
    trial = next((str(m.get("trial")) for m in reversed(ending.messages) if m.get("kind") == "began"), "")
    if last in ("done", "stopped") and ending.status == 0 and not ending.is_timed_out:
        return KernelCheck(SURVIVED, True)
    said = f": {ending.last_words.splitlines()[-1]}" if ending.last_words else ""
    return KernelCheck(SURVIVED, False, detail=_words(f"{ending.words} during the trial {trial!r}{said}"))


def _band(checks: Sequence[KernelCheck]) -> HazardBand:
    failed = [check for check in checks if not check.passed]
    if any(_meaning(check) is Meaning.HARMFUL for check in failed):
        return HazardBand.CRITICAL
    if failed:
        return HazardBand.HIGH
    return HazardBand.MEDIUM if _nearness(checks) > NEAR_LIMIT else HazardBand.LOW


def _risk(checks: Sequence[KernelCheck]) -> float:
    """1 when it does harm, `USELESS_RISK` when it is useless, else up to `PASSED_RISK` by how near a limit it came."""
    band = _band(checks)
    if band is HazardBand.CRITICAL:
        return 1.0
    return USELESS_RISK if band is HazardBand.HIGH else PASSED_RISK * _nearness(checks)


def _nearness(checks: Sequence[KernelCheck]) -> float:
    """The largest share of its limit that any harmful measurement reached."""
    return max(
        (max(0.0, c.value) / c.limit for c in checks if c.limit > 0 and _meaning(c) is Meaning.HARMFUL), default=0.0
    )


def _meaning(check: KernelCheck) -> Meaning:
    rule = _BY_NAME.get(check.name)
    return Meaning.HARMFUL if rule is None else rule.meaning


def _value(measured: Mapping[str, Sequence[_Measured]], name: str) -> float:
    """The largest number."""
    return max((seen.value for seen in measured.get(name, ()) if math.isfinite(seen.value)), default=0.0)


def _is_half(manifest: KernelManifest) -> bool:
    variant = manifest.variant
    return variant.autocast_dtype in _HALF or variant.dtype in _HALF
