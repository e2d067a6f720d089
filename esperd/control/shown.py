"""From values to the wire: the run's state as protobuf messages.

Pure. Together with `asked.py` and the servicers the only place of the daemon that touches protobuf messages.
Enum numbers are the same on both sides, so they pass as they are.
"""

import enum
from collections.abc import Sequence
from typing import Any

from esper.leyline.v1 import admin_service_pb2, state_pb2, state_service_pb2, telemetry_service_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from esperd.control.telemetry_window import Series
from esperd.leyline.keyring import Key
from esperd.leyline.metrics import METRICS, Sample
from esperd.leyline.views import (
    BlueprintOffer,
    BreakerView,
    Contribution,
    Cost,
    EmergencyView,
    GateResult,
    NoticeEvent,
    OptimizerGroupView,
    RestorePoint,
    RunView,
    SeedView,
    SiteView,
    Snapshot,
    StatePacket,
    TimelineEvent,
    TimelineView,
    TransitionEvent,
)

_PACKET_VERSION = 1


def wire(member: enum.IntEnum) -> Any:
    """A word's number, as protobuf takes it: ours and the generated enums share their numbers, not their types."""
    return int(member)


def timestamp(unix_s: float) -> Timestamp:
    """A wall time."""
    seconds, rest = divmod(round(unix_s * 1e9), 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=rest)


def run(view: RunView) -> state_pb2.Run:
    """The run as a whole."""
    return state_pb2.Run(
        run_id=view.run_id,
        task=view.task,
        phase=wire(view.phase),
        global_step=view.global_step,
        epoch=view.epoch,
        num_steps_total=view.num_steps_total,
        train_loss=view.train_loss,
        val_loss=view.val_loss,
        metrics=dict(view.metrics),
        learning_rate=view.learning_rate,
        lr_phase=view.lr_phase,
        samples_per_s=view.samples_per_s,
        step_ms=view.step_ms,
        baseline_step_ms=view.baseline_step_ms,
        num_host_parameters=view.num_host_parameters,
        num_grown_parameters=view.num_grown_parameters,
        train_flops=view.train_flops,
        host_step_flops=view.host_step_flops,
        device=view.device,
        emergency_level=wire(view.emergency_level),
        start_time=timestamp(view.started_unix_s),
        stall=view.stall,
        failure=view.failure,
        timeline=view.timeline,
        resumed_from=view.resumed_from,
        catch_up_step=view.catch_up_step,
    )


def seed(view: SeedView, snapshot: Snapshot, depths: dict[str, int]) -> state_pb2.SeedState:
    """One seed; ages are those at the snapshot's step. `depths` gives each site's index in forward order, from 1."""
    step = snapshot.run.global_step
    age_steps = max(0, step - view.germinated_step)
    return state_pb2.SeedState(
        seed_id=str(view.seed_id),
        stage=wire(view.stage),
        gradient_norm=view.gradient_norm,
        learning_rate=view.learning_rate,
        layer_depth=depths.get(view.site, 0),
        age_epochs=_epochs(age_steps, snapshot.run),
        risk_score=_risk(view, snapshot),
        site=view.site,
        blueprint_id=view.blueprint_id,
        alpha=view.alpha,
        alpha_target=view.alpha_target,
        blend_mode=wire(view.blend_mode),
        training_mode=wire(view.training_mode),
        isolation=wire(view.isolation),
        age_steps=age_steps,
        stage_steps=max(0, step - view.stage_entered_step),
        auto_advance=view.auto_advance,
        cost=_cost(view.cost),
        contributions=[_contribution(found) for found in view.contributions],
        gates=[gate(result) for result in view.gates],
        output_ratio=view.output_ratio,
        seed_loss=view.seed_loss,
        first_order_gain=view.first_order_gain,
        num_isolation_violations=view.num_isolation_violations,
        requested_by=view.requested_by,
        note=view.note,
        germinated_step=view.germinated_step,
        kernel_artifact_id=view.kernel_artifact_id,
        kernel_note=view.kernel_note,
        prewarm_ms=view.prewarm_ms,
    )


def seeds(views: Sequence[SeedView], snapshot: Snapshot) -> list[state_pb2.SeedState]:
    """Seeds of a snapshot."""
    depths = {site_view.site: index for index, site_view in enumerate(snapshot.sites, start=1)}
    return [seed(view, snapshot, depths) for view in views]


def site(view: SiteView) -> state_pb2.Site:
    """One site."""
    blocked_until = timestamp(view.embargoed_until_unix_s) if view.embargoed_until_unix_s else None
    return state_pb2.Site(
        site=view.site,
        module_type=view.module_type,
        activation_shape=view.activation_shape,
        dtype=view.dtype,
        vacant=view.vacant,
        num_fossils=view.num_fossils,
        live_seed_ids=[str(number) for number in view.live_seed_ids],
        embargoed_until_step=view.embargoed_until_step,
        embargoed_until_time=blocked_until,
        offers=[_offer(found) for found in view.offers],
        autocast_dtype=view.autocast_dtype,
        batch_size=view.batch_size,
    )


def optimizer(view: OptimizerGroupView) -> state_pb2.OptimizerGroup:
    """One parameter group."""
    return state_pb2.OptimizerGroup(
        owner=view.owner,
        optimizer_type=view.optimizer_type,
        num_parameters=view.num_parameters,
        num_tensors=view.num_tensors,
        hyperparameters=dict(view.hyperparameters),
    )


def emergency(view: EmergencyView) -> state_pb2.Emergency:
    """One emergency."""
    return state_pb2.Emergency(
        emergency_id=view.emergency_id,
        level=wire(view.level),
        reason=view.reason,
        origin=view.origin,
        raised_step=view.raised_step,
        raise_time=timestamp(view.raised_unix_s),
    )


def breaker(view: BreakerView) -> state_pb2.CircuitBreaker:
    """One circuit breaker."""
    return state_pb2.CircuitBreaker(
        name=view.name, state=wire(view.state), num_failures=view.num_failures, detail=view.detail
    )


def restore_point(view: RestorePoint) -> state_pb2.RestorePoint:
    """A state to which a rollback can go."""
    return state_pb2.RestorePoint(
        global_step=view.global_step,
        timeline=view.timeline,
        checkpoint_id=view.checkpoint_id,
        in_memory=view.in_memory,
        is_good=view.is_good,
        num_bytes=view.num_bytes,
    )


def timeline(view: TimelineView) -> state_pb2.Timeline:
    """One branch of the run's history, in short."""
    return state_pb2.Timeline(
        timeline=view.timeline,
        parent=view.parent,
        fork_step=view.fork_step,
        cause=view.cause,
    )


def opened_timeline(event: TimelineEvent) -> state_pb2.Timeline:
    """One branch of the run's history, with what the rollback did that opened it."""
    return state_pb2.Timeline(
        timeline=event.timeline,
        parent=event.parent,
        fork_step=event.fork_step,
        left_step=event.left_step,
        cause=event.cause,
        checkpoint_id=event.checkpoint_id,
        removed_seed_ids=[str(seed_id) for seed_id in event.removed_seed_ids],
        restored_seed_ids=[str(seed_id) for seed_id in event.restored_seed_ids],
        open_time=timestamp(event.unix_s),
    )


def snapshot_message(snapshot: Snapshot) -> state_service_pb2.StateSnapshot:
    """Everything at one revision."""
    return state_service_pb2.StateSnapshot(
        run=run(snapshot.run),
        seeds=seeds(snapshot.seeds, snapshot),
        sites=[site(view) for view in snapshot.sites],
        optimizers=[optimizer(view) for view in snapshot.optimizers],
        emergencies=[emergency(view) for view in snapshot.emergencies],
        breakers=[breaker(view) for view in snapshot.breakers],
        restore_points=[restore_point(view) for view in snapshot.restore_points],
        timelines=[timeline(view) for view in snapshot.timelines],
    )


def gate(result: GateResult) -> state_pb2.GateResult:
    """What a gate found."""
    evidence = [
        state_pb2.GateEvidence(
            name=found.name,
            value=found.value,
            threshold=found.threshold,
            sense=found.sense,
            passed=found.passed,
            num_samples=found.num_samples,
            detail=found.detail,
        )
        for found in result.evidence
    ]
    return state_pb2.GateResult(
        gate=wire(result.gate),
        verdict=wire(result.verdict),
        global_step=result.global_step,
        evidence=evidence,
        purpose=result.purpose,
    )


def transition(event: TransitionEvent) -> state_service_pb2.SeedTransition:
    """One step of a seed's life."""
    return state_service_pb2.SeedTransition(
        source=wire(event.source),
        target=wire(event.target),
        global_step=event.global_step,
        cause=event.cause,
        gate=None if event.gate is None else gate(event.gate),
        time=timestamp(event.unix_s),
        timeline=event.timeline,
    )


def packet(event: StatePacket, *, sites: Sequence[SiteView], with_run: bool, name: str) -> state_pb2.SystemStatePacket:
    """What a policy decides on, with the given sites, and with the run in full if asked."""
    snapshot, view = event.snapshot, event.snapshot.run
    device_type, _, device_id = view.device.partition(":")
    return state_pb2.SystemStatePacket(
        version=_PACKET_VERSION,
        current_epoch=view.epoch,
        validation_accuracy=view.metrics.get("accuracy", 0.0),
        validation_loss=view.val_loss,
        timestamp_ns=int(event.unix_s * 1e9),
        hardware_context=state_pb2.HardwareContext(device_type=device_type, device_id=device_id),
        training_metrics=dict(view.metrics),
        seed_states=seeds(snapshot.seeds, snapshot),
        packet_id=str(event.packet_number),
        global_step=view.global_step,
        training_loss=view.train_loss,
        source_subsystem="tolaria",
        training_run_id=view.run_id,
        experiment_name=name,
        revision=snapshot.revision,
        sites=[site(found) for found in sites],
        run=run(view) if with_run else None,
        reason=event.reason,
        probe_loss=event.probe_loss,
        emergency_level=wire(view.emergency_level),
        num_steps_total=view.num_steps_total,
        lr_phase=view.lr_phase,
        host_step_flops=view.host_step_flops,
        timeline=view.timeline,
    )


def metric_series(samples: Sequence[Sample]) -> list[telemetry_service_pb2.MetricSeries]:
    """Samples as one series for each metric and slot."""
    found: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample[0], sample[1]), []).append(sample)
    return [
        telemetry_service_pb2.MetricSeries(
            name=name,
            slot=slot,
            global_steps=[step for _, _, step, _, _ in members],
            values=[value for _, _, _, value, _ in members],
            times_unix_ns=[time_ns for _, _, _, _, time_ns in members],
        )
        for (name, slot), members in found.items()
    ]


def key_info(key: Key, now_unix_s: float) -> admin_service_pb2.KeyInfo:
    """A key as it is at a time, without its secret, and without what it has done."""
    info = admin_service_pb2.KeyInfo(
        key_id=key.key_id,
        principal=key.principal,
        permissions=[wire(permission) for permission in sorted(key.permissions)],
        state=key.state(now_unix_s),
    )
    if key.not_before_unix_s is not None:
        info.not_before.CopyFrom(timestamp(key.not_before_unix_s))
    if key.not_after_unix_s is not None:
        info.not_after.CopyFrom(timestamp(key.not_after_unix_s))
    return info


def telemetry_series(series: Series) -> telemetry_service_pb2.TelemetrySeries:
    """What was looked up of one series."""
    return telemetry_service_pb2.TelemetrySeries(
        name=series.name,
        slot=series.slot,
        timeline=series.timeline,
        buckets=[
            telemetry_service_pb2.TelemetryBucket(
                first_step=bucket.first_step,
                last_step=bucket.last_step,
                num_samples=bucket.num_samples,
                minimum=bucket.minimum,
                maximum=bucket.maximum,
                mean=bucket.mean,
                num_not_finite=bucket.num_not_finite,
            )
            for bucket in series.buckets
        ],
    )


def telemetry_event(event: NoticeEvent) -> telemetry_service_pb2.TelemetryEvent:
    """A notice as it is streamed."""
    return telemetry_service_pb2.TelemetryEvent(
        event_id=event.kind,
        description=event.message,
        level=event.level,
        attributes=dict(event.attributes),
        global_step=event.global_step,
        time=timestamp(event.unix_s),
        timeline=event.timeline,
    )


def metric_descriptors() -> list[telemetry_service_pb2.MetricDescriptor]:
    """Every metric there is."""
    return [
        telemetry_service_pb2.MetricDescriptor(name=metric.name, unit=metric.unit, description=metric.description)
        for metric in METRICS.values()
    ]


def _epochs(age_steps: int, view: RunView) -> int:
    steps_per_epoch = view.global_step / view.epoch if view.epoch else 0.0
    return int(age_steps / steps_per_epoch) if steps_per_epoch else 0


def _risk(view: SeedView, snapshot: Snapshot) -> float:
    """The risk of the seed's blueprint as its site offers it."""
    offers = (offer for found in snapshot.sites if found.site == view.site for offer in found.offers)
    return next((offer.risk for offer in offers if offer.blueprint_id == view.blueprint_id), 0.0)


def _cost(view: Cost) -> state_pb2.Cost:
    return state_pb2.Cost(
        num_parameters=view.num_parameters,
        forward_flops=view.forward_flops,
        backward_flops=view.backward_flops,
        activation_bytes=view.activation_bytes,
        step_ms=view.step_ms,
    )


def _contribution(view: Contribution) -> state_pb2.Contribution:
    return state_pb2.Contribution(
        kind=view.kind,
        mean=view.mean,
        lower=view.lower,
        upper=view.upper,
        num_samples=view.num_samples,
        level=view.level,
        std=view.std,
    )


def _offer(view: BlueprintOffer) -> state_pb2.BlueprintOffer:
    return state_pb2.BlueprintOffer(
        blueprint_id=view.blueprint_id, tier=wire(view.tier), risk=view.risk, cost=_cost(view.cost)
    )
