"""What a seed costs in step time, beside what it costs in FLOPs: in TRAINING and in BLENDING.

Training thread, without a control plane. The seed stays in its stage: gates that it would have to pass are wide open,
and the blend ramp is longer than the benchmark.
"""

from dataclasses import replace

from esperd.config.settings import GrowthSettings
from esperd.kasmina.ports import Attribution
from esperd.leyline.commands import SeedCommand
from esperd.leyline.vocabulary import Operation, Stage, Verdict
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
    trainer = make_trainer(width, new_bridge(), LENIENT)
    bare, ours = bare_loop(width), trainer_loop(trainer)
    command = SeedCommand(
        Operation.GERMINATE, site=SITE, blueprint_id=BLUEPRINT, auto_advance=True, auto_advance_until="TRAINING"
    )
    seed_id = trainer.executor.apply(command, 0, _BY)
    ours(20)
    found = _stage_rows(trainer, Stage.TRAINING, duel.idle(bare, ours, seconds=seconds))
    _graft(trainer, seed_id)
    ours(10)
    return found + _stage_rows(trainer, Stage.BLENDING, duel.idle(bare, ours, seconds=seconds))


def _graft(trainer: Trainer, seed_id: int) -> None:
    """Take the seed into BLENDING although it has learnt nothing: its gate is asked, and overruled."""
    executor, step = trainer.executor, trainer.publish().run.global_step
    seed = executor._garden.seeds[seed_id]
    verdict = replace(executor._gardener.ask(seed, step), verdict=Verdict.PASSED)
    executor._gardener.advance(seed, verdict, step, _BY)


def _stage_rows(trainer: Trainer, stage: Stage, pairs: list[duel.Pair]) -> list[Row]:
    (seed,) = trainer.executor.seeds()
    assert seed.stage is stage, seed
    cost, run = seed.cost, trainer.publish().run
    flops = 1.0 + BATCH_SIZE * (cost.forward_flops + cost.backward_flops) / run.host_step_flops
    middle, low, high = duel.interval([pair.ratio for pair in pairs])
    name = f"{STEP_MS:g} ms, one {BLUEPRINT} in {stage.name}"
    return [
        Row(f"{name}: time", middle, low, high, "ratio"),
        Row(f"{name}: FLOPs", flops, flops, flops, "ratio"),
        Row(f"{name}: time over FLOPs", middle / flops, low / flops, high / flops, "ratio"),
    ]
