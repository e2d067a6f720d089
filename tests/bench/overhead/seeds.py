"""What a seed costs in step time, beside what it costs in FLOPs: in TRAINING and in BLENDING.

Training thread, without a control plane. The seed stays in its stage: gates that it would have to pass are wide open,
and the blend ramp is longer than the benchmark.
"""

from esperd.config.settings import GrowthSettings
from esperd.kasmina.ports import Attribution
from esperd.leyline.commands import SeedCommand
from esperd.leyline.vocabulary import Operation, Stage
from esperd.tolaria.trainer import Trainer
from tests.bench.overhead import duel
from tests.bench.overhead.workload import BATCH_SIZE, SITE, bare_loop, calibrate, make_trainer, trainer_loop
from tests.bench.report import Row
from tests.bench.stage import new_bridge

STEP_MS = 3.0
BLUEPRINT = "residual_linear"
FOR_EVER = 1_000_000
LENIENT = GrowthSettings(
    sites=(SITE,),
    min_training_steps=5,
    max_training_steps=FOR_EVER,
    max_dwell_steps=FOR_EVER,
    alpha_steps=FOR_EVER,
    max_output_ratio=1e6,
    non_inferiority_ratio=1e6,
    max_step_time_ratio=1e6,
)
_BY = Attribution("bench")


def rows(seconds: float) -> list[Row]:
    """Time and FLOPs over the host's, and the one over the other, for each stage."""
    width = calibrate(STEP_MS).width
    bridge = new_bridge()
    trainer = make_trainer(width, bridge, LENIENT)
    bare, ours = bare_loop(width), trainer_loop(trainer)
    command = SeedCommand(
        Operation.GERMINATE, site=SITE, blueprint_id=BLUEPRINT, auto_advance=True, auto_advance_until="TRAINING"
    )
    seed_id = trainer.executor.apply(command, 0, _BY)
    ours(20)
    found = _stage_rows(trainer, Stage.TRAINING, duel.idle(bare, ours, seconds=seconds))
    step = bridge.snapshot().run.global_step
    trainer.executor.apply(SeedCommand(Operation.START_GRAFTING, seed_id=seed_id), step, _BY)
    ours(10)
    return found + _stage_rows(trainer, Stage.BLENDING, duel.idle(bare, ours, seconds=seconds))


def _stage_rows(trainer: Trainer, stage: Stage, pairs: list[duel.Pair]) -> list[Row]:
    (seed,) = trainer.executor.seeds()
    assert seed.stage is stage, seed
    cost, run = seed.cost, trainer.publish().run
    flops = 1.0 + BATCH_SIZE * (cost.forward_flops + cost.backward_flops) / run.host_step_flops
    ratios = [pair.ratio for pair in pairs]
    name = f"{STEP_MS:g} ms, one {BLUEPRINT} in {stage.name}"
    return [
        Row(f"{name}: time", *duel.interval(ratios), "ratio"),
        Row(f"{name}: FLOPs", flops, flops, flops, "ratio"),
        Row(f"{name}: time over FLOPs", *(value / flops for value in duel.interval(ratios)), "ratio"),
    ]
