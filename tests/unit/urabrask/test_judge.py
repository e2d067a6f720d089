"""What measurements mean: every rule, the bands, and the word of a process that ended early."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from esperd.config.settings import KernelSettings
from esperd.leyline.kernel_documents import write_report
from esperd.leyline.kernels import KernelFile, KernelInput, KernelManifest, KernelReport, KernelVariant
from esperd.leyline.vocabulary import HandlingClass, HazardBand, KernelFileRole, KernelInputKind
from esperd.urabrask.judge import PASSED_RISK, RULES, USELESS_RISK, Meaning, judge
from esperd.urabrask.process import Ending

SETTINGS = KernelSettings()
VARIANT = KernelVariant(
    "residual_mlp", "0" * 64, {}, (16,), "float32", "float32", "", "cpu", "AVX512", "x86_64", "2.13.0+cpu"
)
MANIFEST = KernelManifest(
    artifact_id="a" * 64,
    variant=VARIANT,
    min_batch=1,
    max_batch=64,
    hint_batch=8,
    inputs=(KernelInput(KernelInputKind.ACTIVATION, "", "float32", (16,), True),),
    output_index=0,
    mutated_buffers=(),
    saved=(),
    gradients=(0,),
    parameter_gradients=(-1,),
    files={role: KernelFile(role, "0" * 64, 10) for role in KernelFileRole if role},
    draws_random=False,
    strategy="standard",
    compile_s=1.0,
    compiler="gcc",
    options={},
    create_unix_s=0.0,
)
GOOD = {rule.name: 0.0 for rule in RULES} | {
    "load": 2.0, "first_run": 1.0, "step_ratio": 0.7, "parameter_step_ratio": 0.6, "resident": 4096.0,
    "output": 3e-6,
}  # fmt: skip


def ending(measured: Mapping[str, float], *rest: Mapping[str, Any], **changes: Any) -> Ending:
    messages = [{"kind": "began", "trial": "equality"}]
    messages += [{"kind": "measured", "name": name, "value": value, "detail": name} for name, value in measured.items()]
    how = Ending((*messages, *(rest or ({"kind": "done"},))), 0, False, "")
    return replace(how, **changes)


def report_on(measured: Mapping[str, float], *rest: Mapping[str, Any], **changes: Any) -> KernelReport:
    return judge(MANIFEST, ending(measured, *rest, **changes), SETTINGS, 12.0)


def failed(report: KernelReport) -> list[str]:
    return [check.name for check in report.checks if not check.passed]


def test_all_within_limits_is_standard() -> None:
    """The report carries what was measured, and a check for each rule."""
    report = report_on(GOOD)
    assert failed(report) == []
    assert (report.load_ms, report.first_ms, report.step_ratio, report.parameter_step_ratio) == (2.0, 1.0, 0.7, 0.6)
    assert (report.max_error, report.resident_bytes, report.create_unix_s) == (3e-6, 4096, 12.0)
    assert [check.name for check in report.checks] == [*(rule.name for rule in RULES), "survived"]
    assert (report.hazard_band, report.handling_class, report.risk_score) == (
        HazardBand.LOW,
        HandlingClass.STANDARD,
        pytest.approx(0.3 * PASSED_RISK),
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_decides(rule: Any) -> None:
    """At its limit a kernel passes; beyond it, it is harmful or useless, as the rule says."""
    limit = rule.limit(SETTINGS, False)
    assert failed(report_on({**GOOD, rule.name: limit})) == []
    report = report_on({**GOOD, rule.name: limit + 1.0})
    assert failed(report) == [rule.name]
    assert report.handling_class is HandlingClass.QUARANTINE
    harmful = rule.meaning is Meaning.HARMFUL
    assert report.hazard_band is (HazardBand.CRITICAL if harmful else HazardBand.HIGH)
    assert report.risk_score == (1.0 if harmful else USELESS_RISK)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_was_not_measured_has_not_passed(rule: Any) -> None:
    """A process that says that it is done has measured everything, or is not believed."""
    report = report_on({name: value for name, value in GOOD.items() if name != rule.name})
    assert failed(report) == [rule.name]


def test_near_a_limit_is_restricted() -> None:
    """A harmful measurement close to its limit; how fast it is has nothing to do with it."""
    report = report_on({**GOOD, "output": 0.9e-5})
    assert (report.hazard_band, report.handling_class) == (HazardBand.MEDIUM, HandlingClass.RESTRICTED)
    assert report.risk_score == pytest.approx(0.9 * PASSED_RISK)
    assert report_on({**GOOD, "step_ratio": 0.99}).hazard_band is HazardBand.LOW


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_no_excuse(value: float) -> None:
    """What is not a number is beyond every limit, and spoils no figure of the report."""
    report = report_on({**GOOD, "output": value, "step_ratio": value})
    assert failed(report) == ["output", "step_ratio"]
    assert (report.step_ratio, report.max_error) == (0.0, 0.0)


def test_of_several_values_the_worst_counts() -> None:
    """A good value later does not cover up a bad one before."""
    again = {"kind": "measured", "name": "output", "value": 0.0, "detail": "batch 8"}
    assert failed(report_on({**GOOD, "output": 1.0}, again, {"kind": "done"})) == ["output"]


def test_what_the_eager_module_rounds_is_no_fault() -> None:
    """Up to twice the eager module's own error a kernel's means nothing; a smaller one beyond that counts instead."""
    rounded = {"kind": "measured", "name": "output", "value": 4e-5, "floor": 5e-5, "detail": "batch 8"}
    report = report_on(GOOD, rounded, {"kind": "done"})
    assert failed(report) == []
    assert report.max_error == 4e-5
    wrong = {"kind": "measured", "name": "output", "value": 1.5e-5, "floor": 1e-6, "detail": "batch 9"}
    report = report_on(GOOD, rounded, wrong, {"kind": "done"})
    assert failed(report) == ["output"]
    assert [check.detail for check in report.checks if check.name == "output"] == ["batch 9"]


def test_sixteen_bits_have_limits_of_their_own() -> None:
    """Under autocast to bfloat16 an error that would be far too large is what the format can do."""
    half = replace(MANIFEST, variant=replace(VARIANT, autocast_dtype="bfloat16"))
    measured = ending({**GOOD, "output": 5e-3})
    assert failed(judge(half, measured, SETTINGS, 0.0)) == []
    assert failed(judge(MANIFEST, measured, SETTINGS, 0.0)) == ["output"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": -11}, "it was ended by SIGSEGV during the trial 'equality'"),
        ({"status": 3, "last_words": "one\nMemoryError"}, "it ended with status 3 during the trial 'equality': Memory"),
        ({"is_timed_out": True}, "it did not end in time during the trial 'equality'"),
    ],
)
def test_a_process_that_ended_early_tells_where(changes: dict[str, Any], words: str) -> None:
    """Only what it measured is judged, and its end is a failed check: not even a kernel that passed everything else
    may end its process."""
    report = report_on({"imports": 0.0}, {"kind": "began", "trial": "equality"}, **changes)
    assert failed(report) == ["survived"]
    assert report.checks[-1].detail.startswith(words)
    assert report.hazard_band is HazardBand.CRITICAL


def test_a_trial_that_could_not_be_carried_out_is_a_check() -> None:
    """With what was raised; the process itself ended in order."""
    message = {"kind": "failed", "trial": "equality", "detail": "RuntimeError: no"}
    report = report_on({"imports": 0.0}, message, {"kind": "stopped"})
    assert failed(report) == ["equality"]
    assert report.hazard_band is HazardBand.CRITICAL


def test_a_stopped_validation_is_judged_by_what_stopped_it() -> None:
    """Nothing was opened, so that nothing else is held against it."""
    report = report_on({"imports": 0.0, "fits": 2.0}, {"kind": "stopped"})
    assert failed(report) == ["fits"]
    assert report.hazard_band is HazardBand.HIGH


def test_stopping_without_a_reason_is_no_way_to_pass() -> None:
    """A process that a kernel has taken over cannot skip what it would fail."""
    report = report_on({"imports": 0.0, "fits": 0.0}, {"kind": "stopped"})
    assert {"output", "leak", "step_ratio"} <= set(failed(report))
    assert report.hazard_band is HazardBand.CRITICAL


@pytest.mark.parametrize("message", [{"kind": "measured"}, {"kind": "measured", "name": 3, "value": "x"}, {"a": 1}])
def test_messages_of_any_form_are_read(message: dict[str, Any]) -> None:
    """The process may have been taken over: what it says is never relied on to have a form."""
    assert "survived" in failed(report_on({}, message))


@pytest.mark.parametrize("said", [None, "0", [], 10**400, math.nan])
def test_what_is_no_number_fails(said: object) -> None:
    """A measurement that cannot be read is worse than any: leaving it out would let the others speak for it."""
    report = report_on(GOOD, {"kind": "measured", "name": "output", "value": said}, {"kind": "done"})
    assert failed(report) == ["output"]


@pytest.mark.parametrize("floor", [math.inf, -math.inf, math.nan, 10**400, "much", None])
def test_no_floor_without_an_end_excuses_an_error(floor: object) -> None:
    """What rounding may cause is finite: where the eager module itself computes no number, nothing is proven."""
    message = {"kind": "measured", "name": "output", "value": 0.5, "floor": floor}
    assert failed(report_on(GOOD, message, {"kind": "done"})) == ["output"]


@pytest.mark.parametrize("said", [-5.0, 1e300, 10**400, math.inf, math.nan])
def test_whatever_is_said_a_report_can_be_written(said: object) -> None:
    """One that cannot would have its kernel tried again for ever, and others wait behind it."""
    odd = {"kind": "failed", "trial": "\ud800", "detail": "\ud800" * 1000}
    message = {"kind": "measured", "name": "resident", "value": said, "detail": "\udfff"}
    report = report_on(without(GOOD, "resident"), message, *[odd] * 2000, {"kind": "stopped"})
    assert report.handling_class is HandlingClass.QUARANTINE
    assert len(write_report(report)) < 1 << 16


def without(measured: Mapping[str, float], name: str) -> dict[str, float]:
    return {key: value for key, value in measured.items() if key != name}
