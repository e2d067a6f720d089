"""From the wire to observations and back."""

import math

from esper.leyline.v1 import state_pb2
from esper.leyline.v1 import vocabulary_pb2 as v
from esper.tamiyo.decision import Cull, Germinate, PauseRun, SetSeedLearningRate, StartGrafting, Withdraw
from esper.tamiyo.packets import PacketReader
from esper.tamiyo.wire import MAX_REASON_BYTES, short, to_attempts, to_commands

from tests.unit.tamiyo.moments import moment, seed


def test_sites_and_batch_size_are_kept_between_packets() -> None:
    """A packet holds only what changed; what it leaves out stays as it was, in order."""
    reader = PacketReader()
    first = state_pb2.SystemStatePacket(
        sites=[state_pb2.Site(site="a", vacant=True), state_pb2.Site(site="b", vacant=True)],
        run=state_pb2.Run(samples_per_s=6400, step_ms=10),
        probe_loss=math.nan,
    )
    seen = reader.read(first)
    assert ([site.site for site in seen.sites], seen.batch_size) == (["a", "b"], 64)
    later = reader.read(state_pb2.SystemStatePacket(sites=[state_pb2.Site(site="a", vacant=False)]))
    assert [(site.site, site.vacant) for site in later.sites] == [("a", False), ("b", True)]
    assert later.batch_size == 64


def test_seed_with_its_evidence() -> None:
    """Stage word, contribution, and whether the gate before the next stage failed."""
    failed = state_pb2.GateResult(gate=v.SEED_GATE_G2_STABILITY, verdict=v.GATE_VERDICT_FAILED)
    passed = state_pb2.GateResult(gate=v.SEED_GATE_G1_GRADIENT_HEALTH, verdict=v.GATE_VERDICT_PASSED)
    gain = state_pb2.Contribution(kind="pre_blend_gain", mean=0.1, lower=0.05, upper=0.2, num_samples=64)
    wire = state_pb2.SeedState(seed_id="3", stage=v.SEED_STAGE_TRAINING, gates=[passed, failed], contributions=[gain])
    [found] = PacketReader().read(state_pb2.SystemStatePacket(seed_states=[wire])).seeds
    assert (found.stage, found.gate_failed) == ("TRAINING", True)
    assert found.gain("pre_blend_gain") is not None
    blending = state_pb2.SeedState(seed_id="3", stage=v.SEED_STAGE_BLENDING, gates=[failed])
    assert not PacketReader().read(state_pb2.SystemStatePacket(seed_states=[blending])).seeds[0].gate_failed


def test_unknown_numbers_of_a_newer_daemon_do_no_harm() -> None:
    """An unknown stage is UNKNOWN, an unknown tier counts as the riskiest."""
    packet = state_pb2.SystemStatePacket(
        seed_states=[state_pb2.SeedState(seed_id="1", stage=99)],  # type: ignore[arg-type]
        sites=[state_pb2.Site(site="a", offers=[state_pb2.BlueprintOffer(blueprint_id="x", tier=99)])],  # type: ignore[arg-type]
    )
    seen = PacketReader().read(packet)
    assert seen.seeds[0].stage == "UNKNOWN"
    assert seen.sites[0].offers[0].tier == "HIGH_RISK"


def test_memory() -> None:
    """Share of the device's memory in use, not known where the daemon does not tell."""
    hardware = state_pb2.HardwareContext(total_memory_gb=10, available_memory_gb=1)
    assert math.isclose(PacketReader().read(state_pb2.SystemStatePacket(hardware_context=hardware)).memory_used, 0.9)
    assert math.isnan(PacketReader().read(state_pb2.SystemStatePacket()).memory_used)


def test_commands_on_the_wire() -> None:
    """Each decision becomes its operation; request ids are made from decision and place."""
    decided = [
        Germinate("conv1", "residual_conv", {"expansion": 2}),
        StartGrafting("1"),
        Cull("1"),
        Withdraw("1"),
        SetSeedLearningRate("1", 0.001),
        PauseRun(),
    ]
    sent = to_commands("d-1", "p", decided, ())
    assert [one.request_id for one in sent] == [f"p/d-1/{n}" for n in range(6)]
    assert [one.seed_operation.operation for one in sent[:4]] == [
        v.SEED_OPERATION_GERMINATE,
        v.SEED_OPERATION_START_GRAFTING,
        v.SEED_OPERATION_CULL,
        v.SEED_OPERATION_CANCEL,
    ]
    assert sent[1].seed_operation.auto_advance_until == v.SEED_STAGE_UNKNOWN
    assert sent[4].optimizer_adjustment.optimizer_id == "seed:1"
    attempts = to_attempts(decided, sent, moment(seeds=(seed("1"),)))
    assert [attempt.operation for attempt in attempts] == ["GERMINATE", "START_GRAFTING", "CULL", "CULL"]


def test_long_rationale_is_cut_at_a_letter() -> None:
    """The daemon refuses longer ones, and half a letter is no text."""
    assert len(short("é" * 1000).encode()) == MAX_REASON_BYTES
    assert short("plain") == "plain"
