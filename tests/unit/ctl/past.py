"""A run with a past: a rollback, a seed that was left behind, one that came back, and commands that are undone."""

from esper.leyline.v1 import checkpoint_service_pb2 as checkpoint_pb
from esper.leyline.v1 import command_pb2 as commands
from esper.leyline.v1 import state_pb2 as state
from esper.leyline.v1 import state_service_pb2 as state_pb
from esper.leyline.v1 import vocabulary_pb2 as v
from google.protobuf.timestamp_pb2 import Timestamp

from tests.unit.ctl.small_daemon import SmallDaemon

START_S = 1_800_000_000


def at(step: int) -> Timestamp:
    """The time of a step: one a second."""
    return Timestamp(seconds=START_S + step)


def transition(
    source: v.SeedLifecycleStage, target: v.SeedLifecycleStage, step: int, cause: str = "auto", timeline: int = 1
) -> state_pb.SeedTransition:
    return state_pb.SeedTransition(
        source=source, target=target, global_step=step, cause=cause, time=at(step), timeline=timeline
    )


def command(number: int, step: int, reason: str, **fields: object) -> commands.Command:
    seed_id = str(fields.pop("seed_id", ""))
    state_ = fields.pop("state", v.COMMAND_STATE_APPLIED)
    request = commands.AdaptationCommand(reason=reason, **fields)  # type: ignore[arg-type]
    return commands.Command(
        command_id=f"p-{number}", state=state_, request=request, principal="policy", accept_time=at(step),
        update_time=at(step), global_step=step, seed_id=seed_id, timeline=1, sequence=number, kind="seed",
    )  # type: ignore[arg-type]  # fmt: skip


def checkpoint(step: int, *, good: bool = True) -> checkpoint_pb.Checkpoint:
    return checkpoint_pb.Checkpoint(
        checkpoint_id=f"t001-s{step:09d}", run_id="run-1", kind=v.CHECKPOINT_KIND_SCHEDULED, timeline=1,
        global_step=step, is_good=good, num_bytes=12_345_678, write_time=at(step), note="nightly",
    )  # fmt: skip


def point(step: int, *, good: bool = True, in_memory: bool = False) -> state.RestorePoint:
    name = "" if in_memory else f"t001-s{step:09d}"
    return state.RestorePoint(
        global_step=step, timeline=1, checkpoint_id=name, in_memory=in_memory, is_good=good, num_bytes=1000
    )


def give_past(daemon: SmallDaemon) -> None:
    """At step 405 of timeline 1: seed 1 blends, 2 was culled, 3 is a fossil, 4 is young; the rate was changed."""
    germinated, training, blending = v.SEED_STAGE_GERMINATED, v.SEED_STAGE_TRAINING, v.SEED_STAGE_BLENDING
    dormant, fossil = v.SEED_STAGE_DORMANT, v.SEED_STAGE_FOSSILIZED
    evidence = state.GateEvidence(
        name="output_ratio", value=0.02, threshold=0.5, sense="at_most", passed=True, num_samples=640
    )
    gate = state.GateResult(
        gate=v.SEED_GATE_G2_STABILITY, verdict=v.GATE_VERDICT_PASSED, global_step=300, evidence=[evidence]
    )
    blend = transition(training, blending, 300, "p-4")
    blend.gate.CopyFrom(gate)
    daemon.stories = {
        "1": [transition(dormant, germinated, 90, "p-1"), transition(germinated, training, 100), blend],
        "2": [
            transition(dormant, germinated, 100, "p-2"),
            transition(germinated, training, 110),
            transition(training, v.SEED_STAGE_CULLED, 350, "guard:non_finite"),
        ],
        "3": [
            transition(dormant, germinated, 120, "p-3"),
            transition(germinated, training, 130),
            transition(v.SEED_STAGE_PROBATIONARY, fossil, 320, "p-5"),
        ],
        "4": [transition(dormant, germinated, 380, "p-6")],
    }
    daemon.seeds = [
        state.SeedState(
            seed_id=name, site=f"conv{name}", blueprint_id="residual_conv", germinated_step=story[0].global_step
        )
        for name, story in daemon.stories.items()
    ]
    daemon.seeds[0].alpha = 0.45
    daemon.restore_points = [point(100), point(200), point(400, good=False), point(390, in_memory=True)]
    daemon.checkpoints = [checkpoint(400, good=False), checkpoint(200), checkpoint(100)]
    rate = commands.CommandOptimizerAdjustment(optimizer_id="host", hyperparameters={"lr": 0.001})
    swap = commands.CommandKernelSwap(artifact_id="ab" * 32)
    advance = commands.CommandSeedOperation(operation=v.SEED_OPERATION_START_GRAFTING)
    germinate = commands.CommandSeedOperation(
        operation=v.SEED_OPERATION_GERMINATE, blueprint_id="residual_conv", site="conv1"
    )
    refused = command(
        7, 310, "now", target_seed_id="1", seed_id="1", state=v.COMMAND_STATE_REJECTED,
        seed_operation=commands.CommandSeedOperation(operation=v.SEED_OPERATION_FOSSILIZE),
    )  # fmt: skip
    refused.error.message = "E-SEED-002: Seed 1 is BLENDING; FOSSILIZE needs PROBATIONARY."
    daemon.past = [
        command(6, 380, "more", seed_operation=germinate, seed_id="4"),
        command(8, 370, "slower", optimizer_adjustment=rate),
        command(11, 325, "to compare", kernel_swap=commands.CommandKernelSwap(), target_seed_id="3", seed_id="3"),
        command(10, 322, "a kernel is there for it", kernel_swap=swap, target_seed_id="3", seed_id="3"),
        refused,
        command(4, 300, "it is stable", seed_operation=advance, target_seed_id="1", seed_id="1"),
        command(3, 120, "third", seed_operation=germinate, seed_id="3"),
        command(2, 100, "second", seed_operation=germinate, seed_id="2"),
        command(1, 90, "the loss is flat", seed_operation=germinate, seed_id="1"),
    ]


def go_back(daemon: SmallDaemon, step: int = 200, cause: str = "p-9") -> None:
    """What the daemon tells after a rollback."""
    left = daemon.run.global_step
    daemon.timelines.append(
        state.Timeline(
            timeline=2, parent=1, fork_step=step, left_step=left, cause=cause, removed_seed_ids=["4"],
            restored_seed_ids=["2"], open_time=at(left), checkpoint_id=f"t001-s{step:09d}",
        )
    )  # fmt: skip
    asked = commands.CommandRollback(global_step=step)
    daemon.past.insert(0, command(9, left, "it got worse", rollback=asked))
    daemon.run.timeline, daemon.run.global_step = 2, step
