"""The tables of esperctl: what of each message an operator wants to see first."""

import re
from collections.abc import Iterable

from esper.ctl import words
from esper.ctl.history import is_on, steps_until
from esper.ctl.kernel_tables import short
from esper.ctl.output import columns, count, duration, number, pairs
from esper.leyline.v1 import (
    checkpoint_service_pb2,
    command_pb2,
    run_service_pb2,
    server_service_pb2,
    state_pb2,
    state_service_pb2,
    vocabulary_pb2,
)
from esper.text import plain

_OF_THE_TRAINER = (
    "timeline",
    "loss",
    "learning rate",
    "speed",
    "parameters",
    "training FLOPs",
    "newest good state",
    "newest good on disk",
)
"""What only a trainer knows: as long as there is none, zeros would be taken for the state of the run."""
_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def status(
    answer: run_service_pb2.GetRunResponse, newest: checkpoint_service_pb2.Checkpoint | None, now_unix_s: float
) -> str:
    """The run at a glance; `newest` is its newest checkpoint."""
    run = answer.run
    total = f" of {run.num_steps_total}" if run.num_steps_total else ""
    rows: list[tuple[str, object]] = [
        ("run", run.run_id),
        ("task", run.task),
        ("phase", words.phase(run.phase)),
        ("stall", run.stall),
        ("failure", run.failure),
        ("catching up", f"to step {run.catch_up_step}" if run.catch_up_step else ""),
        ("step", f"{run.global_step}{total} (epoch {run.epoch})"),
        ("timeline", timeline_line(answer)),
        ("resumed from", run.resumed_from),
        ("loss", f"train {number(run.train_loss)}, validation {number(run.val_loss)}"),
        ("metrics", ", ".join(f"{name} {number(value)}" for name, value in sorted(run.metrics.items()))),
        ("learning rate", f"{number(run.learning_rate)} ({run.lr_phase})"),
        ("speed", f"{count(run.samples_per_s)} samples/s, {number(run.step_ms)} ms a step"),
        ("eta", eta(run)),
        ("parameters", f"host {count(run.num_host_parameters)}, grown {count(run.num_grown_parameters)}"),
        ("training FLOPs", count(run.train_flops)),
        ("device", run.device),
        ("newest good state", newest_good(answer)),
        ("newest good on disk", newest_good(answer, on_disk=True)),
        ("last checkpoint", last_checkpoint(newest, now_unix_s)),
        ("policy", answer.lease_principal or "none steers"),
        ("emergency", words.level(run.emergency_level)),
    ]
    if run.phase == vocabulary_pb2.TRAINER_PHASE_STARTING:
        rows = [("step", "not known before the run is set up") if name == "step" else (name, value)
                for name, value in rows if name not in _OF_THE_TRAINER]  # fmt: skip
    rows += [("", f"{emergency.emergency_id}: {emergency_line(emergency)}") for emergency in answer.emergencies]
    rows += [("breaker", breaker_line(breaker)) for breaker in answer.breakers]
    rows.append(("revision", answer.revision))
    return pairs(rows)


def timeline_line(answer: run_service_pb2.GetRunResponse) -> str:
    """The timeline, and where it came from."""
    number = answer.run.timeline
    one = next((found for found in answer.timelines if found.timeline == number), None)
    if one is None or not one.parent:
        return str(number or 1)
    return f"{number}, from step {one.fork_step} of timeline {one.parent}"


def newest_good(answer: run_service_pb2.GetRunResponse, *, on_disk: bool = False) -> str:
    """The state to which the run would go back if something went wrong now, or if its memory were gone too."""
    steps = steps_until(answer.timelines, answer.run.timeline)
    known = [point for point in answer.restore_points if is_on(steps, point.timeline, point.global_step)]
    found = [point for point in known if point.is_good and (point.checkpoint_id or not on_disk)]
    if not found:
        return "none yet"
    return place(max(found, key=lambda point: (point.timeline, point.global_step)))


def place(point: state_pb2.RestorePoint) -> str:
    """A state and where it is kept."""
    where = [*([f"checkpoint {point.checkpoint_id}"] if point.checkpoint_id else []), *(["memory"] * point.in_memory)]
    return f"step {point.global_step} of timeline {point.timeline} ({' and '.join(where)})"


def last_checkpoint(newest: checkpoint_service_pb2.Checkpoint | None, now_unix_s: float) -> str:
    """The newest checkpoint and its age."""
    if newest is None:
        return "none yet"
    age_s = max(0.0, now_unix_s - newest.write_time.ToNanoseconds() / 1e9)
    return f"{newest.checkpoint_id}, {duration(age_s)} ago"


def eta(run: state_pb2.Run) -> str:
    """Time to the end at the current step time; empty when there is no end or no speed."""
    left = run.num_steps_total - run.global_step
    return duration(left * run.step_ms / 1e3) if run.num_steps_total and left > 0 and run.step_ms > 0 else ""


def emergency_line(emergency: state_pb2.Emergency) -> str:
    """One emergency in a line."""
    level = words.level(emergency.level)
    return f"{level} since step {emergency.raised_step}, by {emergency.origin}: {emergency.reason}"


def breaker_line(breaker: state_pb2.CircuitBreaker) -> str:
    """One breaker in a line."""
    state = words.breaker_state(breaker.state)
    return f"{breaker.name} {state}, {breaker.num_failures} failures {breaker.detail}".rstrip()


def seeds(found: Iterable[state_pb2.SeedState]) -> str:
    """One line for each seed."""
    header = (
        "SEED",
        "SITE",
        "BLUEPRINT",
        "STAGE",
        "STEPS",
        "ALPHA",
        "GAIN",
        "BOUNDS",
        "PARAMS",
        "KERNEL",
        "BY",
        "NOTE",
    )
    rows = []
    for seed in found:
        gain = seed.contributions[-1] if seed.contributions else None
        rows.append(
            (
                seed.seed_id,
                seed.site,
                seed.blueprint_id,
                words.stage(seed.stage),
                seed.stage_steps,
                f"{seed.alpha:.2f}",
                number(gain.mean) if gain else "-",
                f"{number(gain.lower)} to {number(gain.upper)}" if gain else "-",
                count(seed.cost.num_parameters),
                short(seed.kernel_artifact_id),
                seed.requested_by or "-",
                seed.note,
            )
        )
    return columns(header, rows, "no seeds")


def seed(answer: state_service_pb2.GetSeedResponse) -> str:
    """One seed, its gates with their evidence, and its story."""
    found = answer.seed
    rows: list[tuple[str, object]] = [
        ("seed", f"{found.seed_id}, {found.blueprint_id} at {found.site}"),
        ("stage", f"{words.stage(found.stage)} for {found.stage_steps} steps, germinated at {found.germinated_step}"),
        ("note", found.note),
        ("alpha", f"{found.alpha:.3f} towards {found.alpha_target:.3f}, blend {words.blend(found.blend_mode)}"),
        ("auto-advance", found.auto_advance),
        ("losses", f"own {number(found.seed_loss)}, gradient norm {number(found.gradient_norm)}"),
        ("output ratio", number(found.output_ratio)),
        ("first-order gain", number(found.first_order_gain)),
        ("cost", _cost(found.cost)),
        ("kernel", _kernel(found)),
        ("isolation violations", found.num_isolation_violations),
        ("asked for by", found.requested_by),
    ]
    rows += [(gain.kind.replace("_", " "), contribution(gain)) for gain in found.contributions]
    gates = [line for result in found.gates for line in gate_lines(result)]
    return "\n".join(
        [pairs(rows), *(["", "gates:"] if gates else []), *gates, "", "story:", transitions(answer.transitions)]
    )


def contribution(gain: state_pb2.Contribution) -> str:
    """A measured gain with its bounds."""
    bounds = f"{number(gain.lower)} to {number(gain.upper)}"
    return f"{number(gain.mean)}, {bounds} at level {number(gain.level)} over {gain.num_samples} samples"


def gate_lines(result: state_pb2.GateResult) -> list[str]:
    """A gate and each thing it looked at."""
    purpose = f" ({result.purpose})" if result.purpose else ""
    lines = [f"  {words.gate(result.gate)}{purpose} {words.verdict(result.verdict)} at step {result.global_step}"]
    for item in result.evidence:
        mark = "ok  " if item.passed else "FAIL"
        asked = f"{item.sense.replace('_', ' ')} {number(item.threshold)}"
        samples = f", {item.num_samples} samples" if item.num_samples else ""
        detail = f" ({item.detail})" if item.detail else ""
        lines.append(f"    {mark} {item.name} {number(item.value)}, {asked}{samples}{detail}")
    return lines


def transitions(found: Iterable[state_service_pb2.SeedTransition]) -> str:
    """One line for each step of a seed's life."""
    header = ("TIMELINE", "STEP", "FROM", "TO", "GATE", "CAUSE")
    rows = [
        (
            transition.timeline or 1,
            transition.global_step,
            words.stage(transition.source),
            words.stage(transition.target),
            f"{words.gate(transition.gate.gate)} {words.verdict(transition.gate.verdict)}"
            if transition.gate.gate
            else "-",
            transition.cause,
        )
        for transition in found
    ]
    return columns(header, rows, "nothing yet")


def sites(found: Iterable[state_pb2.Site]) -> str:
    """Each site, and below it what may grow there."""
    blocks = []
    for site in found:
        shape = "x".join(map(str, site.activation_shape)) or "shape not seen yet"
        if site.vacant:
            state = "vacant"
        elif site.live_seed_ids:
            state = f"seeds {', '.join(site.live_seed_ids)}"
        else:
            state = f"embargoed until step {site.embargoed_until_step}"
        what = f"{site.site}  {site.module_type}  {shape} {site.dtype}  {state}, {site.num_fossils} fossils"
        blocks.append(plain(what))
        rows = [
            (
                f"  {offer.blueprint_id}",
                words.tier(offer.tier),
                f"{offer.risk:.2f}",
                count(offer.cost.num_parameters),
                count(offer.cost.forward_flops),
                count(offer.cost.activation_bytes),
            )
            for offer in site.offers
        ]
        header = ("  BLUEPRINT", "TIER", "RISK", "PARAMS", "FORWARD FLOPS", "ACTIVATION BYTES")
        blocks.append(columns(header, rows, "  nothing may grow here"))
    return "\n".join(blocks) or "no sites: the run is still starting, or [growth] sites names none"


def optimizers(found: Iterable[state_pb2.OptimizerGroup]) -> str:
    """One line for each group."""
    header = ("OWNER", "OPTIMIZER", "TENSORS", "PARAMS", "HYPER-PARAMETERS")
    rows = [
        (
            group.owner,
            group.optimizer_type,
            group.num_tensors,
            count(group.num_parameters),
            ", ".join(f"{name}={number(value)}" for name, value in sorted(group.hyperparameters.items())),
        )
        for group in found
    ]
    return columns(header, rows, "no optimizers yet")


def command(found: command_pb2.Command) -> str:
    """One command in a line; the error is on stderr."""
    if not found.command_id:
        return "valid; nothing was changed"
    state = words.command_state(found.state)
    where = f" at step {found.global_step}, revision {found.revision}" if found.revision else ""
    seed_id = f", seed {found.seed_id}" if found.seed_id else ""
    return f"command {found.command_id} {state}{where}{seed_id}"


def commands(found: Iterable[command_pb2.Command]) -> str:
    """One line for each command."""
    header = ("COMMAND", "STATE", "STEP", "WHAT", "BY", "REASON", "ERROR")
    rows = [
        (
            one.command_id,
            words.command_state(one.state),
            one.global_step or "-",
            what(one) + (f" (seed {one.seed_id})" if one.seed_id and not one.request.target_seed_id else ""),
            one.principal,
            one.request.reason,
            one.error.reason,
        )
        for one in found
    ]
    return columns(header, rows, "no commands")


def command_line(found: command_pb2.Command) -> str:
    """A change of one command in a line of its own."""
    step = f" at step {found.global_step}" if found.global_step else ""
    why = f": {found.request.reason}" if found.request.reason else ""
    error = f" ({found.error.reason})" if found.error.reason else ""
    state = f"{words.command_state(found.state)}{step}{error}"
    return plain(f"{found.command_id}  {state}  {what(found)}, by {found.principal}{why}")


def what(command: command_pb2.Command) -> str:
    """What a command asks, in a few words; of what has no request, its kind."""
    request = command.request
    kind = request.WhichOneof("payload")
    if kind == "seed_operation":
        asked = request.seed_operation
        name = words.operation(asked.operation)
        if request.target_seed_id:
            return f"{name} seed {request.target_seed_id}"
        return f"{name} {asked.blueprint_id} at {asked.site}"
    if kind == "optimizer_adjustment":
        values = request.optimizer_adjustment.hyperparameters
        changes = ", ".join(f"{name}={number(value)}" for name, value in sorted(values.items()))
        return f"{request.optimizer_adjustment.optimizer_id}: {changes or 'reset'}"
    if kind == "circuit_breaker":
        breaker = request.circuit_breaker
        return f"breaker {breaker.name} {words.breaker_state(breaker.desired_state)}"
    if kind == "run_control":
        return words.word(command_pb2.RunAction, request.run_control.action, "RUN_ACTION_")
    if kind == "checkpoint":
        return "checkpoint"
    if kind == "kernel_swap":
        return f"seed {request.target_seed_id} by {kernel_or_eager(request.kernel_swap.artifact_id)}"
    if kind == "rollback":
        return f"rollback to {rollback_target(request.rollback)}"
    return _CAPITALS.sub(" ", command.kind).lower() or "-"


def rollback_target(asked: command_pb2.CommandRollback) -> str:
    """Where a rollback was to go."""
    if asked.checkpoint_id:
        return asked.checkpoint_id
    return f"before seed {asked.before_seed_id}" if asked.before_seed_id else f"step {asked.global_step}"


def info(found: server_service_pb2.GetServerInfoResponse) -> str:
    """Who the daemon is."""
    rows: list[tuple[str, object]] = [
        ("daemon", found.server_id),
        ("version", found.version),
        ("torch", found.torch_version),
        ("run", found.run_id),
        ("epoch", found.epoch.hex()),
        ("clock", found.server_time.ToJsonString()),
        ("capabilities", ", ".join(found.capabilities)),
    ]
    rows += [(name, value) for name, value in sorted(found.limits.items())]
    return pairs(rows)


def kernel_or_eager(artifact_id: str) -> str:
    """By what a seed computes."""
    return f"kernel {short(artifact_id)}" if artifact_id else "its eager module"


def _kernel(found: state_pb2.SeedState) -> str:
    """By what a seed computes, how long its kernel took to warm up, or why it has none."""
    warm = f", warmed up in {number(found.prewarm_ms)} ms" if found.prewarm_ms else ""
    why = f": {found.kernel_note}" if found.kernel_note else ""
    return f"{found.kernel_artifact_id or 'none, runs its eager module'}{warm}{why}"


def _cost(cost: state_pb2.Cost) -> str:
    flops = f"{count(cost.forward_flops)} forward FLOPs"
    return f"{count(cost.num_parameters)} parameters, {flops}, {count(cost.activation_bytes)} activation bytes a sample"
