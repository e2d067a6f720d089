"""What came of each decision: observation windows, and the reports that are filed when they close.

Pure values and functions; the clock is passed in. A window opens with the outcome of a command that grows something and
closes when its seed has come to an end, when its steps have passed, or when the run has. No credit is given for the
host's own progress: a seed is judged by its measured contribution alone (growth science, section 8).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from esper.tamiyo.observation import Attempt, Ending, Gain, Observation, Seed

OutcomeName = Literal["SUCCESS", "NEUTRAL", "REGRESSION", "ABORTED"]
LOSS_RISE = 0.02
"""A culled seed that had blended and left the loss this much higher, relatively, did harm."""
WATCHED = frozenset({"GERMINATE", "START_GRAFTING", "HELD_OUT"})
"""Operations that are reported on."""


@dataclass(frozen=True, slots=True)
class Window:
    """One decision under observation."""

    report_id: str
    run_id: str
    operation: str
    command_id: str
    seed_id: str
    blueprint_id: str
    begin_step: int
    due_step: int
    probe_loss: float
    validation_loss: float
    training_loss: float
    propensity: float = 1.0
    held_out: bool = False
    refusal: str = ""
    """The catalogue's reason, if the command came to nothing."""
    timeline: int = 1
    """The branch of the run's history on which it was opened."""


@dataclass(frozen=True, slots=True)
class Report:
    """One field report, ready to be delivered."""

    report_id: str
    run_id: str
    command_id: str
    seed_id: str
    blueprint_id: str
    outcome: OutcomeName
    window_steps: int
    issued_unix_s: float
    policy_version: str
    notes: str
    propensity: float = 1.0
    held_out: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    follow_ups: tuple[tuple[str, str], ...] = ()
    """(action, rationale): `CONSERVATIVE_MODE` or `ROLLBACK_REQUEST`."""


def open_window(
    attempt: Attempt, command_id: str, observation: Observation, window_steps: int, *, propensity: float, held_out: bool
) -> Window:
    """Begin to watch what comes of a command; its report id is the same however often it is made."""
    return Window(
        report_id=f"{observation.run_id}/{command_id or attempt.request_id}",
        run_id=observation.run_id,
        operation=attempt.operation,
        command_id=command_id,
        seed_id=attempt.seed_id,
        blueprint_id=attempt.blueprint_id,
        begin_step=observation.step,
        due_step=observation.step + window_steps,
        probe_loss=observation.probe_loss,
        validation_loss=observation.validation_loss,
        training_loss=observation.training_loss,
        propensity=propensity,
        held_out=held_out,
        refusal="" if attempt.state in ("APPLIED", "PENDING") else attempt.reason or attempt.state,
        timeline=observation.timeline,
    )


def close_windows(
    windows: Iterable[Window], observation: Observation, *, policy_version: str, now_unix_s: float
) -> list[Report]:
    """Reports on the windows that are over."""
    reports = []
    for window in windows:
        seed = next((seed for seed in observation.seeds if seed.seed_id == window.seed_id), None)
        ending = _ending(window, seed, observation)
        over = (
            window.refusal
            or window.timeline != observation.timeline
            or ending is not None
            or observation.step >= window.due_step
            or observation.reason == "run_finished"
        )
        if over:
            reports.append(_report(window, seed, ending, observation, policy_version, now_unix_s))
    return reports


def _ending(window: Window, seed: Seed | None, observation: Observation) -> Ending | None:
    """How the seed ended; a fossil that nobody saw become one (the policy was away) has ended too."""
    if seed is not None and seed.stage == "FOSSILIZED":
        return Ending(seed.seed_id, seed.site, seed.blueprint_id, "FOSSILIZED", "PROBATIONARY", observation.step)
    return next((e for e in observation.endings if window.seed_id and e.seed_id == window.seed_id), None)


def _report(
    window: Window,
    seed: Seed | None,
    ending: Ending | None,
    observation: Observation,
    policy_version: str,
    now_unix_s: float,
) -> Report:
    outcome, notes = _outcome(window, seed, ending, observation)
    return Report(
        report_id=window.report_id,
        run_id=window.run_id,
        command_id=window.command_id,
        seed_id=window.seed_id,
        blueprint_id=window.blueprint_id,
        outcome=outcome,
        window_steps=max(0, observation.step - window.begin_step),
        issued_unix_s=now_unix_s,
        policy_version=policy_version,
        notes=notes,
        propensity=window.propensity,
        held_out=window.held_out,
        metrics=_metrics(window, seed, observation),
        follow_ups=_follow_ups(outcome, observation),
    )


def _outcome(
    window: Window, seed: Seed | None, ending: Ending | None, observation: Observation
) -> tuple[OutcomeName, str]:
    if window.refusal:
        return "ABORTED", f"the command came to nothing: {window.refusal}"
    if window.timeline != observation.timeline:
        return "ABORTED", f"a rollback left timeline {window.timeline}, on which it was decided"
    if window.held_out:
        return "NEUTRAL", "held out at random as a control"
    if ending is not None and ending.stage == "FOSSILIZED":
        return "SUCCESS", f"seed {window.seed_id} was kept at step {ending.step}"
    if ending is not None:
        rise = _relative_change(window, observation)
        if ending.last_stage not in ("GERMINATED", "TRAINING") and rise > LOSS_RISE:
            return "REGRESSION", f"culled in {ending.last_stage} with the loss {rise:.1%} above the window's begin"
        return "NEUTRAL", f"culled in {ending.last_stage}"
    if observation.reason == "run_finished" and observation.step < window.due_step:
        return "ABORTED", "the run finished before the window did"
    return _by_gain(measured_gain(seed))


def _by_gain(gain: Gain | None) -> tuple[OutcomeName, str]:
    if gain is None:
        return "NEUTRAL", "no contribution was measured in the window"
    if gain.lower > 0.0:
        return "SUCCESS", f"{gain.kind} is above 0 at the level of its bound"
    if gain.upper < 0.0:
        return "REGRESSION", f"{gain.kind} is below 0 at the level of its bound"
    return "NEUTRAL", f"{gain.kind} is not separated from 0"


def measured_gain(seed: Seed | None) -> Gain | None:
    """The pre-blend gain, which is close to causal; else the dependence, which overstates it."""
    if seed is None:
        return None
    return seed.gain("pre_blend_gain") or seed.gain("dependence")


def _metrics(window: Window, seed: Seed | None, observation: Observation) -> dict[str, float]:
    found = {
        "probe_loss_before": window.probe_loss,
        "probe_loss_after": observation.probe_loss,
        "probe_loss_delta": observation.probe_loss - window.probe_loss,
        "validation_loss_before": window.validation_loss,
        "validation_loss_after": observation.validation_loss,
        "validation_loss_delta": observation.validation_loss - window.validation_loss,
        "training_loss_delta": observation.training_loss - window.training_loss,
    }
    if seed is not None:
        found["flops_ratio"] = observation.flops_ratio(seed.cost)
        found["num_parameters"] = float(seed.cost.num_parameters)
        found["first_order_gain"] = seed.first_order_gain
        for gain in seed.gains:
            found |= {f"{gain.kind}_mean": gain.mean, f"{gain.kind}_lower": gain.lower}
            found |= {f"{gain.kind}_upper": gain.upper, f"{gain.kind}_num_samples": float(gain.num_samples)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _relative_change(window: Window, observation: Observation) -> float:
    for before, after in (
        (window.probe_loss, observation.probe_loss),
        (window.validation_loss, observation.validation_loss),
        (window.training_loss, observation.training_loss),
    ):
        if math.isfinite(before) and before > 0.0:
            return after / before - 1.0 if math.isfinite(after) else math.inf
    return 0.0


def _follow_ups(outcome: OutcomeName, observation: Observation) -> tuple[tuple[str, str], ...]:
    if outcome != "REGRESSION":
        return ()
    if not math.isfinite(observation.training_loss):
        return (("ROLLBACK_REQUEST", "the training loss is not finite"),)
    return (("CONSERVATIVE_MODE", "growth made the run worse"),)
