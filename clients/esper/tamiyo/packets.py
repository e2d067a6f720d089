"""Translates a SystemStatePacket into an observation.

Policy process. With `wire` the only modules of the policy that know protobuf. A packet carries only the sites that
changed, and the run only now and then, so the reader keeps what it saw of them.
"""

import math
from collections.abc import Iterable

from esper.leyline.v1 import state_pb2, vocabulary_pb2
from esper.tamiyo.observation import Cost, Gain, Observation, Offer, Seed, Site

BYTES_KNOWN_GB = 1e-6
"""Total memory below this means that the daemon does not know it."""

NEXT_GATE: dict[int, int] = {
    vocabulary_pb2.SEED_STAGE_GERMINATED: vocabulary_pb2.SEED_GATE_G1_GRADIENT_HEALTH,
    vocabulary_pb2.SEED_STAGE_TRAINING: vocabulary_pb2.SEED_GATE_G2_STABILITY,
    vocabulary_pb2.SEED_STAGE_BLENDING: vocabulary_pb2.SEED_GATE_G3_INTERFACE,
    vocabulary_pb2.SEED_STAGE_SHADOWING: vocabulary_pb2.SEED_GATE_G4_SYSTEM_IMPACT,
    vocabulary_pb2.SEED_STAGE_PROBATIONARY: vocabulary_pb2.SEED_GATE_G4_SYSTEM_IMPACT,
}
"""Stage to the gate that guards the next one."""


class PacketReader:
    """Makes moments of one stream's packets."""

    def __init__(self) -> None:
        self._sites: dict[str, Site] = {}
        self._batch_size = 0

    def take_sites(self, sites: Iterable[state_pb2.Site]) -> None:
        """Take the sites that changed, or all of them, over those known before; their order stays."""
        self._sites |= {site.site: _site(site) for site in sites}

    def read(self, packet: state_pb2.SystemStatePacket) -> Observation:
        """The moment that a packet describes, without its past."""
        self.take_sites(packet.sites)
        # The run's speed tells the batch size; a site's shape may be that of a small sample.
        self._batch_size = round(packet.run.samples_per_s * packet.run.step_ms / 1e3) or self._batch_size
        seeds = tuple(_seed(seed) for seed in packet.seed_states)
        return Observation(
            run_id=packet.training_run_id,
            step=packet.global_step,
            num_steps_total=packet.num_steps_total,
            lr_phase=packet.lr_phase,
            revision=packet.revision,
            reason=packet.reason,
            probe_loss=packet.probe_loss,
            validation_loss=packet.validation_loss,
            training_loss=packet.training_loss,
            emergency_level=packet.emergency_level,
            host_step_flops=packet.host_step_flops,
            batch_size=self._batch_size,
            memory_used=_memory_used(packet.hardware_context),
            seeds=seeds,
            sites=tuple(self._sites.values()),
            timeline=packet.timeline or 1,
        )


def _seed(seed: state_pb2.SeedState) -> Seed:
    return Seed(
        seed_id=seed.seed_id,
        stage=stage_name(seed.stage),
        site=seed.site,
        blueprint_id=seed.blueprint_id,
        stage_steps=seed.stage_steps,
        germinated_step=seed.germinated_step,
        alpha=seed.alpha,
        learning_rate=seed.learning_rate,
        cost=_cost(seed.cost),
        gains=tuple(
            Gain(gain.kind, gain.mean, gain.lower, gain.upper, gain.num_samples) for gain in seed.contributions
        ),
        first_order_gain=seed.first_order_gain,
        gate_failed=any(
            result.gate == NEXT_GATE.get(seed.stage) and result.verdict == vocabulary_pb2.GATE_VERDICT_FAILED
            for result in seed.gates
        ),
        num_isolation_violations=seed.num_isolation_violations,
        risk=seed.risk_score,
        requested_by=seed.requested_by,
    )


def _site(site: state_pb2.Site) -> Site:
    offers = tuple(
        Offer(offer.blueprint_id, _cost(offer.cost), offer.risk, tier_name(offer.tier)) for offer in site.offers
    )
    return Site(
        site.site,
        site.vacant,
        tuple(site.activation_shape),
        site.num_fossils,
        site.embargoed_until_step,
        offers,
    )


def _cost(cost: state_pb2.Cost) -> Cost:
    return Cost(cost.num_parameters, cost.forward_flops, cost.backward_flops)


def _memory_used(hardware: state_pb2.HardwareContext) -> float:
    if hardware.total_memory_gb < BYTES_KNOWN_GB:
        return math.nan
    return 1.0 - hardware.available_memory_gb / hardware.total_memory_gb


def stage_name(stage: int) -> str:
    """`TRAINING` for SEED_STAGE_TRAINING; a number that this contract does not know is `UNKNOWN`."""
    names = vocabulary_pb2.SeedLifecycleStage
    return names.Name(stage).removeprefix("SEED_STAGE_") if stage in names.values() else "UNKNOWN"


def tier_name(tier: int) -> str:
    """`SAFE` for BLUEPRINT_TIER_SAFE; a number that this contract does not know is taken as the riskiest."""
    names = vocabulary_pb2.BlueprintTier
    return names.Name(tier).removeprefix("BLUEPRINT_TIER_") if tier in names.values() else "HIGH_RISK"
