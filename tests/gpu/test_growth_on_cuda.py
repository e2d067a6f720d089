"""Growth on a CUDA device: the host does not notice a seed that learns, a seed lives its whole life, nothing waits."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from esperd.config.settings import TrainingSettings
from esperd.leyline.vocabulary import Operation, Stage
from esperd.tolaria.task import Task
from tests.unit.tolaria.growing import MODES, apply, assert_one_owner_each, fingerprint, growing, images_task, until
from tests.unit.tolaria.harness import Run, recording_losses

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def _deterministic() -> Iterator[None]:
    """The flags of `[training] deterministic`."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    """Puts the mode back in which torch lets a step wait for the device."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def fused_task() -> Task:
    """The images with a fused optimizer, which can skip a step on the device by itself."""
    task = images_task()
    model = task.model.cuda()
    return replace(task, model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.01, fused=True))


def on_cuda(task: Task, sites: tuple[str, ...] = ("body",), log_every_steps: int = 5, **growth: Any) -> Run:
    return growing(task, sites, TrainingSettings(device="cuda", log_every_steps=log_every_steps), **growth)


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("blueprint", ["dropping", "nan"])
def test_a_seed_that_trains_is_not_noticed(blueprint: str, mode: Any) -> None:
    """Losses, weights, buffers, optimizer state and the device's generator, with bf16 autocast, before and after."""
    parameters = {"delay": 6 if blueprint == "nan" else 0}
    results = []
    for is_grown in (True, False):
        losses: list[float] = []
        run = on_cuda(fused_task(), min_training_steps=100_000)
        recording_losses(run, losses)
        run.steps(3)
        if is_grown:
            seed_id = apply(
                run, Operation.GERMINATE, site="body", blueprint_id=blueprint, training_mode=mode, parameters=parameters
            )
            run.steps(1)
            apply(run, Operation.START_TRAINING, seed_id)
        run.steps(30 - run.trainer.parts.progress.global_step)
        losses += run.trainer.loss_reader.drain()
        results.append((losses, fingerprint(run, 8) | {"cuda rng": torch.cuda.get_rng_state()}))
    assert results[0][0] == results[1][0]
    assert results[0][1].keys() == results[1][1].keys()
    for name, tensor in results[0][1].items():
        assert torch.equal(tensor, results[1][1][name]), name


def test_bf16_autocast_is_the_default_where_the_device_has_it() -> None:
    """The activations are bf16, the weights of host and seed float32, and no scaler is there."""
    if not torch.cuda.is_bf16_supported():
        pytest.skip("needs a device with bf16")
    run = on_cuda(fused_task(), min_training_steps=100_000)
    assert run.trainer.amp == "bfloat16"
    assert run.trainer.optimizers._scaler is None
    seed_id = apply(run, Operation.GERMINATE, site="body", blueprint_id="residual_conv", auto_advance=True)
    until(run, seed_id, Stage.TRAINING)
    seed = run.trainer.executor._garden.seeds[seed_id]
    assert all(p.is_cuda and p.dtype is torch.float32 for p in [*run.task.model.parameters(), *seed.parameters])
    assert run.trainer.parts.forward(next(iter(run.task.train_data))[0].cuda()).dtype is torch.bfloat16


def test_a_whole_life_on_the_device() -> None:
    """A graft by gates up to PROBATIONARY, then a cull; nothing remains, and memory goes back to what it was."""
    run = on_cuda(fused_task())
    run.steps(10)
    torch.cuda.synchronize()
    before_bytes = torch.cuda.memory_allocated()
    wish = {"auto_advance": True, "auto_advance_until": "PROBATIONARY"}
    seed_id = apply(run, Operation.GERMINATE, site="body", blueprint_id="residual_conv", **wish)
    until(run, seed_id, Stage.PROBATIONARY)
    apply(run, Operation.CULL, seed_id)
    until(run, seed_id, Stage.DORMANT)
    assert_one_owner_each(run)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before_bytes + (1 << 20)  # workspaces of new shapes may stay


@pytest.mark.usefixtures("_no_waiting")
def test_no_step_between_log_steps_waits_for_the_device() -> None:
    """Without a seed a step never synchronises: torch would raise."""
    run = on_cuda(fused_task(), log_every_steps=1000)
    run.steps(12)  # everything lazy has been made; an epoch has 40 batches
    torch.cuda.set_sync_debug_mode("error")
    run.steps(20)
    torch.cuda.set_sync_debug_mode("default")
    assert run.view.phase.name == "TRAINING"
