"""The checks between the stages of a seed's life: each says PASSED, FAILED or UNMEASURED, and on what evidence.

Training thread, at safe points. They measure and say; they change neither seed nor host. G0 is in `germination`. What
each asks is the table in design 03, Gates; the statistics are those of the growth research, section 7.
"""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from esperd.config.settings import GrowthSettings
from esperd.kasmina.evidence import MIN_SAMPLES
from esperd.kasmina.isolation import differential_probe, owns_exactly, reaches_host
from esperd.kasmina.judgement import Judgement
from esperd.kasmina.ports import Host, SeedOptimizers
from esperd.kasmina.probes import OFF, Prober, Variant
from esperd.kasmina.seed import Remains, Seed
from esperd.kasmina.slot import Slot, rms
from esperd.kasmina.streams import Purpose, private_rng, stream_seed
from esperd.kasmina.training_modes import as_host_casts
from esperd.leyline.views import Evidence, GateResult
from esperd.leyline.vocabulary import Gate, Verdict

AMPLITUDES = (1.0, 0.5, 0.25, 0.125)
"""What the line search tries: powers of two, so that scaling the output by one is exact."""
GRADIENT_NORM_RANGE = (1e-12, 1e4)
FUTILE_BELOW = 0.0
"""A seed whose gain before blending is surely below this is futile. Not the wanted gain: on the byte-level task three
transformer layers were bounded within [0.008, 0.018] nats before their blend, a third of what is wanted at commit, and
were worth over 0.1 nats at the end of the run; before blending the host has not yet learned to use them."""
MAX_BLENDED_RATIO = 2.0
"""rms(alpha * delta) / rms(activation) while blending, at most: beyond it the seed has taken the site over."""
REFERENCE_Z = 1.6448536269514722
"""One-sided 95 % point: the reference is one fixed sample, looked at for a decision only."""

_SENSES = {
    "at_most": lambda value, threshold: value <= threshold,
    "at_least": lambda value, threshold: value >= threshold,
    "below": lambda value, threshold: value < threshold,
    "above": lambda value, threshold: value > threshold,
    "equal": lambda value, threshold: value == threshold,
}


def look(name: str, value: float, sense: str, threshold: float, num_samples: int = 0, detail: str = "") -> Evidence:
    """One measurement with its threshold."""
    passed = bool(_SENSES[sense](value, threshold))
    return Evidence(name, float(value), float(threshold), sense, passed, num_samples, detail)


def conclude(
    gate: Gate, step: int, evidence: Sequence[Evidence], *, waits: bool = False, purpose: str = ""
) -> GateResult:
    """PASSED if all evidence is good; else FAILED, or UNMEASURED where more measuring may still help (`waits`)."""
    good = all(item.passed for item in evidence)
    verdict = Verdict.PASSED if good else Verdict.UNMEASURED if waits else Verdict.FAILED
    return GateResult(gate, verdict, step, tuple(evidence), purpose)


def gradient_health(
    host: Host,
    slots: Sequence[Slot],
    slot: Slot,
    seed: Seed,
    optimizers: SeedOptimizers,
    host_parameters: Sequence[nn.Parameter],
    prober: Prober,
    step: int,
) -> GateResult:
    """G1: a dry backward reaches every parameter of the seed, and nothing of the host."""
    batch = host.sample_inputs()
    x = prober.activation(slot, seed, batch)
    evidence = [_ownership(optimizers, seed, host_parameters)]
    try:
        evidence += _dry_backward(host, slot, seed, x, host_parameters)
        same, detail = differential_probe(host, slots, slot, seed, batch)
        evidence.append(look("host_gradient_unchanged", float(same), "equal", 1.0, detail=detail))
    except Exception as error:  # noqa: BLE001 - a seed's own code may raise anything; that is the finding
        evidence.append(look("dry_backward", 0.0, "equal", 1.0, detail=f"raised {type(error).__name__}: {error}"))
    return conclude(Gate.G1_GRADIENT_HEALTH, step, evidence)


def stability(
    host: Host, slot: Slot, seed: Seed, prober: Prober, settings: GrowthSettings, level: float, step: int
) -> tuple[GateResult, float, Judgement]:
    """G2: line search over the amplitude, then the paired test of non-inferiority at the best one.

    Returns the result, the amplitude (0: none helps) and the evidence. The averaged weights are judged; they stand
    still here, since all of it happens at one safe point.
    """
    batches = host.probe_batches(2 * settings.probe_units)
    trials = [Variant(1.0, amplitude, averaged=True) for amplitude in AMPLITUDES]
    rows = prober.losses(slot, seed, [OFF, *trials], batches)
    reference_loss = statistics.fmean(rows[0])
    gains = [_mean_gain(rows[0], row) for row in rows[1:]]
    best = max(range(len(gains)), key=gains.__getitem__)
    amplitude = AMPLITUDES[best] if gains[best] > 0.0 else 0.0
    judgement = Judgement(level, -settings.non_inferiority_ratio * reference_loss, _loss_cap(slot, settings))
    evidence = [
        look("dwell_steps", step - seed.stage_entered_step, "at_least", settings.min_training_steps),
        look("isolation_violations", seed.num_violations, "equal", 0.0),
        look("amplitude", amplitude, "above", 0.0, len(rows[0]), detail=f"gains {_listed(gains)}"),
    ]
    if amplitude:
        seed.first_order_gain = prober.first_order_gain(slot, seed, batches[0])
        evidence.append(_averaged_ratio(host, slot, seed, prober, amplitude, settings))
        _collect(host, slot, seed, prober, settings, judgement, amplitude)
        sequence = judgement.sequence
        n = judgement.num_units
        lower = -math.inf if judgement.broken else sequence.lower
        evidence.append(look("pre_blend_gain_lower", lower, "above", judgement.wanted, n, _proof(judgement)))
        evidence.append(look("pre_blend_gain_upper", sequence.upper, "above", FUTILE_BELOW, n))
        if judgement.bet is not None:
            evidence.append(look("bet_p_value", judgement.bet.p_value, "at_most", level, n))
    seed.reference_loss = reference_loss
    return conclude(Gate.G2_STABILITY, step, evidence), amplitude, judgement


def interface(
    seed: Seed, settings: GrowthSettings, zero_identity: bool, step: int, *, timed: bool = True
) -> GateResult:
    """G3: the blend has arrived and the activation it makes is one the host can live with."""
    ramp = seed.ramp
    arrived = ramp is not None and ramp.num_steps_left == 0 and ramp.target > 0.0
    evidence = [
        look("alpha_arrived", float(arrived), "equal", 1.0, detail=f"alpha {seed.alpha_value:.4f}"),
        look("guard_trips", float(bool(seed.tripped)), "equal", 0.0, detail=seed.tripped),
        look("output_ratio_max", seed.health.max_output_ratio, "at_most", MAX_BLENDED_RATIO),
        look("not_finite_steps", seed.health.num_not_finite, "equal", 0.0),
        look("alpha_zero_is_host", float(zero_identity), "equal", 1.0),
        look("isolation_violations", seed.num_violations, "equal", 0.0),
        step_time(seed, settings, timed=timed),
    ]
    return conclude(Gate.G3_INTERFACE, step, evidence, waits=not arrived)


def impact(seed: Seed, settings: GrowthSettings, step: int, *, timed: bool = True) -> GateResult:
    """G4 before PROBATIONARY: with the frozen seed the held-out loss is better than without it."""
    judgement = seed.judgement
    if judgement is None:
        return conclude(Gate.G4_SYSTEM_IMPACT, step, [look("units", 0, "at_least", MIN_SAMPLES)], waits=True)
    evidence = [*_gain(judgement, settings), step_time(seed, settings, timed=timed)]
    return conclude(Gate.G4_SYSTEM_IMPACT, step, evidence, waits=_open(judgement, settings))


def commit(
    host: Host, slot: Slot, seed: Seed, prober: Prober, settings: GrowthSettings, step: int, *, timed: bool = True
) -> GateResult:
    """G4 before FOSSILIZED: the wanted gain is proven, real progress was made, and the rent is paid."""
    judgement = seed.judgement
    if judgement is None or _open(judgement, settings):
        evidence = _gain(judgement, settings) if judgement else [look("units", 0, "at_least", MIN_SAMPLES)]
        return conclude(Gate.G4_SYSTEM_IMPACT, step, evidence, waits=True, purpose="commit")
    evidence = _gain(judgement, settings)
    rent = rent_due(slot, seed, settings)
    evidence.append(look("rent_paid", judgement.sequence.mean, "at_least", rent, judgement.num_units))
    evidence.append(_progress(slot, seed, prober))
    evidence.append(step_time(seed, settings, timed=timed))
    evidence.append(look("alpha", seed.alpha_value, "equal", 1.0))
    evidence.append(_fossil_change(host, slot, seed, prober))
    return conclude(Gate.G4_SYSTEM_IMPACT, step, evidence, purpose="commit")


def reset(remains: Remains, slot: Slot, *, owned: int, elapsed: bool, step: int) -> GateResult:
    """G5: nothing of the seed is left, and the embargo is over."""
    hooked = slot.has_hook and not (slot.live or slot.fossils)
    evidence = [
        look("hooks_left", float(hooked), "equal", 0.0),
        look("optimizer_tensors_left", owned, "equal", 0.0),
        look("parameters_reachable", remains.num_reachable, "equal", 0.0),
        look("embargo_elapsed", float(elapsed), "equal", 1.0),
    ]
    return conclude(Gate.G5_RESET, step, evidence)


def rent_due(slot: Slot, seed: Seed, settings: GrowthSettings) -> float:
    """The gain that the seed's own FLOPs ask for: `rent * loss * ln(1 + seed FLOPs / host FLOPs)`."""
    host_flops = slot.site.spec.host_forward_flops
    ratio = seed.cost.forward_flops / host_flops if host_flops > 0.0 else 0.0
    return settings.rent * seed.reference_loss * math.log1p(ratio)


def step_time(seed: Seed, settings: GrowthSettings, *, timed: bool = True) -> Evidence:
    """Median step time with the seed over that without its own share; left out of a run that must repeat exactly."""
    if not timed:
        return look("step_time_ratio", 1.0, "at_most", settings.max_step_time_ratio, 0, "left out: deterministic run")
    pairs = list(zip(seed.health.step_s, seed.health.seed_s, strict=True))
    ratio = 1.0
    if pairs:
        whole = statistics.median(step for step, _ in pairs)
        host = statistics.median(max(step - own, 0.0) for step, own in pairs)
        ratio = whole / host if host > 0.0 else 1.0 if whole <= 0.0 else math.inf
    return look("step_time_ratio", ratio, "at_most", settings.max_step_time_ratio, len(pairs))


def _dry_backward(
    host: Host, slot: Slot, seed: Seed, x: Tensor, host_parameters: Sequence[nn.Parameter]
) -> list[Evidence]:
    version = x._version
    parameters = [p for p in seed.module.parameters() if p.requires_grad]
    stream = stream_seed(slot.random_seed, seed.seed_id, Purpose.DRY_RUN)
    with torch.enable_grad(), private_rng(host.device, stream):
        with as_host_casts(host, slot):
            d = seed.module(x)  # not grown yet: its amplitude is 1, and no kernel comes into it
        target = torch.randn_like(d, dtype=torch.float32) * rms(x)
        loss = (d.float() - target).square().mean() / rms(x).square().clamp_min(1e-12)
        leaked = reaches_host(loss, host_parameters) if loss.requires_grad else 0
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True) if loss.requires_grad else []
    reached = [gradient for gradient in gradients if gradient is not None]
    norm = float(nn.utils.get_total_norm([g.float() for g in reached])) if reached else 0.0
    low, high = GRADIENT_NORM_RANGE
    return [
        look("parameters_reached", len(reached), "equal", len(parameters)),
        look("gradient_norm", norm if math.isfinite(norm) else math.inf, "at_most", high),
        look("gradient_norm_floor", norm, "at_least", low),
        look("host_parameters_reached", leaked, "equal", 0.0),
        look("input_untouched", float(x._version == version), "equal", 1.0),
    ]


def _ownership(optimizers: SeedOptimizers, seed: Seed, host_parameters: Sequence[nn.Parameter]) -> Evidence:
    wrong = owns_exactly(optimizers, seed, host_parameters)
    return look("owns_its_parameters", float(not wrong), "equal", 1.0, detail=wrong)


def _collect(
    host: Host,
    slot: Slot,
    seed: Seed,
    prober: Prober,
    settings: GrowthSettings,
    judgement: Judgement,
    amplitude: float,
) -> None:
    """Measure until the seed is proven harmless enough, refuted, futile, or the units are spent."""
    trial = Variant(1.0, amplitude, averaged=True)
    while judgement.num_units < settings.max_probe_units and not judgement.broken:
        batches = host.probe_batches(settings.probe_units)
        without, with_seed = prober.losses(slot, seed, [OFF, trial], batches)
        judgement.take(without, with_seed)
        if judgement.proven or judgement.refuted or judgement.sequence.upper < FUTILE_BELOW:
            return


def _averaged_ratio(
    host: Host, slot: Slot, seed: Seed, prober: Prober, amplitude: float, settings: GrowthSettings
) -> Evidence:
    x = prober.activation(slot, seed, host.sample_inputs())
    with torch.no_grad(), private_rng(host.device, 0), as_host_casts(host, slot):
        d = seed.averaged_delta(x, amplitude)
    ratio = float(rms(d) / rms(x).clamp_min(1e-12))
    return look("output_ratio", ratio, "at_most", settings.max_output_ratio)


def _gain(judgement: Judgement, settings: GrowthSettings) -> list[Evidence]:
    n, sequence = judgement.num_units, judgement.sequence
    lower = -math.inf if judgement.broken else sequence.lower
    evidence = [look("gain_lower", lower, "above", judgement.wanted, n, _proof(judgement))]
    if judgement.bet is not None:
        evidence.append(look("bet_p_value", judgement.bet.p_value, "at_most", sequence.level, n))
    if n >= settings.max_probe_units and not judgement.proven:
        evidence.append(look("units", n, "below", settings.max_probe_units, n, "undecided at the limit"))
    return evidence


def _open(judgement: Judgement, settings: GrowthSettings) -> bool:
    """Whether more units could still decide."""
    if judgement.proven or judgement.refuted:
        return False
    return judgement.num_units < settings.max_probe_units


def _progress(slot: Slot, seed: Seed, prober: Prober) -> Evidence:
    """Losses now against the host's own at blend start, on the same units.

    Catches the seed that made itself needed without making anything better.
    """
    batches, before = seed.reference
    now = prober.losses(slot, seed, [Variant(seed.alpha_value)], batches)[0]
    gaps = [b - a for a, b in zip(before, now, strict=True)]
    upper = math.inf
    if len(gaps) > 1 and all(map(math.isfinite, gaps)):
        upper = statistics.fmean(gaps) + REFERENCE_Z * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return look("loss_change_since_blend_start_upper", upper, "at_most", 0.0, len(gaps))


def _fossil_change(host: Host, slot: Slot, seed: Seed, prober: Prober) -> Evidence:
    """How much fossilizing would change the model's output in evaluation: the two forms, side by side."""
    batch = host.sample_inputs()
    as_it_stands = prober.outputs(slot, seed, None, batch)
    with slot.as_fossil(seed):
        as_fossil = prober.outputs(slot, seed, None, batch)
    change = 0.0 if torch.equal(as_it_stands, as_fossil) else float((as_it_stands - as_fossil).abs().max())
    return look("fossilizing_changes_output_by", change, "equal", 0.0, int(as_it_stands.numel()))


def _loss_cap(slot: Slot, settings: GrowthSettings) -> float:
    """`4 ln(classes)` for the betting process in strict mode, else 0 (no such process)."""
    return 4.0 * math.log(max(2, slot.site.spec.num_classes)) if settings.strict_evidence else 0.0


def new_judgement(slot: Slot, settings: GrowthSettings, level: float, wanted: float) -> Judgement:
    """Fresh evidence for a stage."""
    return Judgement(level, wanted, _loss_cap(slot, settings))


def _mean_gain(without: Sequence[float], with_seed: Sequence[float]) -> float:
    gain = statistics.fmean(a - b for a, b in zip(without, with_seed, strict=True))
    return gain if math.isfinite(gain) else -math.inf


def _proof(judgement: Judgement) -> str:
    if judgement.broken:
        return "a loss with the seed was not finite"
    sequence = judgement.sequence
    return f"mean {sequence.mean:.5g}, sd {sequence.std:.3g}, level {sequence.level:.3g}"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{amplitude:g}: {value:.5g}" for amplitude, value in zip(AMPLITUDES, values, strict=True))
