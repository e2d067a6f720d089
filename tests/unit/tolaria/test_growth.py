"""Growth under the real trainer: the host does not notice a seed that learns, and nothing of a culled one remains.

`tests/unit/kasmina` proves the executor's side on a loop of its own; here the trainer, its optimizers, its precision
and its clipping take part.
"""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from esperd.config.settings import TrainingSettings
from esperd.examples import bytes as byte_text
from esperd.leyline.commands import SeedCommand
from esperd.leyline.vocabulary import BlendMode, CommandState, Operation, Stage, TrainingMode
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task
from tests.unit.tolaria.growing import (
    MODES,
    Images,
    apply,
    assert_one_owner_each,
    fingerprint,
    growing,
    images_task,
    stage_of,
    until,
)
from tests.unit.tolaria.harness import Run, bare_losses, make_task, recording_losses

# The host does not notice


@pytest.mark.parametrize(("amp", "clip"), [("off", 0.0), ("off", 0.3), ("bf16", 0.3)])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("blueprint", ["dropping", "nan"])
def test_a_seed_that_trains_is_not_noticed(blueprint: str, mode: TrainingMode, amp: str, clip: float) -> None:
    """Losses, weights, buffers, optimizer state and RNG are those of the run without it; and again after its cull."""
    training = TrainingSettings(device="cpu", amp=amp, clip_grad_norm=clip, log_every_steps=3)
    parameters = {"delay": 6 if blueprint == "nan" else 0}
    results = []
    for is_grown in (True, False):
        losses: list[float] = []
        run = growing(images_task(), ("body",), training, min_training_steps=100_000)
        recording_losses(run, losses)
        run.steps(3)
        if is_grown:
            seed_id = apply(
                run, Operation.GERMINATE, site="body", blueprint_id=blueprint, training_mode=mode, parameters=parameters
            )
            run.steps(1)
            apply(run, Operation.START_TRAINING, seed_id)
            run.steps(14)
            if stage_of(run, seed_id) is Stage.TRAINING:
                apply(run, Operation.CULL, seed_id)
            run.steps(40 - run.view.global_step)
            assert stage_of(run, seed_id) is Stage.DORMANT
            assert_one_owner_each(run)
        else:
            run.steps(37)
        results.append((losses, fingerprint(run, 8)))
    assert results[0][0] == results[1][0]
    assert len(results[0][0]) == 40
    assert results[0][1].keys() == results[1][1].keys()
    for name, tensor in results[0][1].items():
        assert torch.equal(tensor, results[1][1][name]), name


def test_several_candidates_at_several_sites_are_not_noticed() -> None:
    """Side by side at two sites, with differing modes: still the bare loop, bit for bit."""
    run = growing(images_task(), ("stem", "body"), min_training_steps=100_000)
    losses: list[float] = []
    recording_losses(run, losses)
    for site, mode in [("stem", MODES[0]), ("body", MODES[1]), ("body", MODES[0])]:
        run.submit(
            SeedCommand(
                Operation.GERMINATE, site=site, blueprint_id="dropping", training_mode=mode, auto_advance=True,
                parameters={"delay": 0},
            )
        )  # fmt: skip
    run.steps(40)
    assert [seed.stage for seed in run.bridge.snapshot().seeds] == [Stage.TRAINING] * 3
    plain = images_task()
    torch.manual_seed(7)
    assert losses == bare_losses(plain, 40)
    assert all(map(torch.equal, run.task.model.state_dict().values(), plain.model.state_dict().values()))


def test_a_blueprint_that_cannot_run_at_all_is_not_offered() -> None:
    """One whose code raises already when its cost is looked at: told in a notice; the others are offered."""
    run = growing(images_task(), ("body",))
    offered = {offer.blueprint_id for offer in run.bridge.snapshot().sites[0].offers}
    assert "residual_conv" in offered
    assert "raises_forward" not in offered
    told = {event.attributes["blueprint_id"] for event in run.notices("blueprint.unusable")}
    assert "raises_forward" in told
    assert run.steps(2).view.failure == ""


# Nothing remains


@pytest.mark.parametrize(
    ("stage", "isolation"),
    [
        (Stage.TRAINING, "DEFAULT"),
        (Stage.BLENDING, "DEFAULT"),
        (Stage.BLENDING, "STRICT"),
        (Stage.SHADOWING, "DEFAULT"),
        (Stage.PROBATIONARY, "DEFAULT"),
        (Stage.PROBATIONARY, "RELEASED"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_nothing_of_a_culled_seed_can_be_reached(stage: Stage, isolation: str) -> None:
    """After a cull from any stage its module, parameters, gradients, optimizer and hooks are gone."""
    run = growing(images_task(), ("body",), isolation=isolation, min_dwell_steps=3)
    run.steps(3)
    seed_id = apply(
        run, Operation.GERMINATE, site="body", blueprint_id="residual_conv", auto_advance=True,
        auto_advance_until=stage.name,
    )  # fmt: skip
    until(run, seed_id, stage)
    run.steps(2)
    seed = run.trainer.executor._garden.seeds[seed_id]
    optimizer = run.trainer.optimizers._seeds[seed_id].optimizer
    left: list[weakref.ref[Any]] = [weakref.ref(thing) for thing in (seed, seed.module, optimizer, *seed.parameters)]
    left += [weakref.ref(module) for module in seed.module.modules()]
    del seed, optimizer
    apply(run, Operation.CULL, seed_id)
    assert_one_owner_each(run)
    gc.collect()
    assert [reference() for reference in left if reference() is not None] == []
    assert len(run.task.optimizer.state) == len(list(run.task.model.parameters()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.task.model.modules())
    assert list(run.task.model.state_dict()) == list(Images().state_dict())
    until(run, seed_id, Stage.DORMANT)
    assert {group.owner for group in run.bridge.snapshot().optimizers} == {"host"}


# Every parameter has one owner


def bent_task() -> Task:
    """A linear host before a function that no linear map fits at all: every seed with a bend in it helps greatly."""
    torch.manual_seed(3)
    x = torch.randn(768, 6, generator=torch.Generator().manual_seed(4))
    y = x.abs().sum(1, keepdim=True) - 4.8
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1))
    return make_task(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        loss_fn=functional.mse_loss,
        train_data=TensorBatches(x[:512], y[:512], 16, shuffle_seed=1),
        eval_data=TensorBatches(x[512:], y[512:], 256),
        metrics={},
    )


def test_one_owner_each_through_a_contest_a_fossil_and_a_cull() -> None:
    """Looked at after every step: two rivals, a graft, a fossil, a seed on top of it, another one culled."""
    run = growing(bent_task(), ("0", "1"))
    run.steps(50)
    wish = {"auto_advance": True, "auto_advance_until": "PROBATIONARY"}
    rivals = [apply(run, Operation.GERMINATE, site="0", blueprint_id="residual_mlp", **wish) for _ in range(2)]
    until_one_is(run, rivals, Stage.PROBATIONARY)
    fossilize(run, next(seed_id for seed_id in rivals if stage_of(run, seed_id) is Stage.PROBATIONARY))
    second = apply(run, Operation.GERMINATE, site="0", blueprint_id="residual_mlp", **wish)
    third = apply(run, Operation.GERMINATE, site="1", blueprint_id="residual_linear", **wish)
    until(run, third, Stage.TRAINING)
    apply(run, Operation.CULL, third)
    until_one_is(run, [second], Stage.PROBATIONARY, Stage.DORMANT)  # the second one may well not help any more
    if stage_of(run, second) is Stage.PROBATIONARY:
        apply(run, Operation.CULL, second)
    until(run, second, Stage.DORMANT)
    until(run, third, Stage.DORMANT)
    (fossil,) = run.bridge.snapshot().seeds
    assert run.view.num_grown_parameters == fossil.cost.num_parameters
    assert {group.owner for group in run.bridge.snapshot().optimizers} == {"host"}


def until_one_is(run: Run, seed_ids: list[int], *stages: Stage) -> None:
    for _ in range(500):
        run.steps(1)
        assert_one_owner_each(run)
        if any(stage_of(run, seed_id) in stages for seed_id in seed_ids):
            return
    raise AssertionError(run.bridge.snapshot().seeds)


def fossilize(run: Run, seed_id: int) -> None:
    """Ask until the commit gate passes: the loss must have fallen below that of the blend's begin."""
    for _ in range(100):
        command_id = run.submit(SeedCommand(Operation.FOSSILIZE, seed_id=seed_id))
        run.steps(1)
        assert_one_owner_each(run)
        if run.outcome(command_id).state is CommandState.APPLIED:
            return
        run.steps(10)
    raise AssertionError(run.outcome(command_id).refusal)


class Tied(nn.Module):
    """A tiny language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.block = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.head(self.block(self.embedding(tokens_BT))).transpose(1, 2)


def tied_task() -> Task:
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(0, 11, (576, 7), generator=generator)
    for index in range(6):
        is_lawful = torch.rand(576, generator=generator) < 0.9
        tokens[:, index + 1] = torch.where(is_lawful, tokens[:, index].square() % 11, tokens[:, index + 1])
    model = Tied()
    return make_task(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        train_data=TensorBatches(tokens[:320, :-1], tokens[:320, 1:], 8, shuffle_seed=1),
        eval_data=TensorBatches(tokens[320:, :-1], tokens[320:, 1:], 256),
        metrics={},
    )


def test_tied_weights_have_one_owner_and_a_seed_lives_between_them() -> None:
    """Counted once, stepped once: bit-identical while the seed trains, one owner each all its life."""
    run = growing(tied_task(), ("block",), alpha_steps=20)
    losses: list[float] = []
    recording_losses(run, losses)
    run.steps(20)
    seed_id = apply(run, Operation.GERMINATE, site="block", blueprint_id="gated_ffn", auto_advance=True)
    until(run, seed_id, Stage.BLENDING)
    step = run.view.global_step
    plain = tied_task()
    torch.manual_seed(7)
    assert losses[:step] == bare_losses(plain, step)
    until(run, seed_id, Stage.FOSSILIZED)
    assert run.task.model.head.weight is run.task.model.embedding.weight
    assert run.view.num_host_parameters == sum(p.numel() for p in plain.model.parameters())


# Sites anywhere


class Nested(nn.Module):
    """Lists, dictionaries and sequences inside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 6)))] * 1)
        self.stages.append(nn.Sequential(nn.Linear(6, 6), nn.Tanh()))
        self.branches = nn.ModuleDict({"left": nn.Linear(6, 6), "right": nn.Linear(6, 6)})
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(self.branches["left"](x) + self.branches["right"](x))


@pytest.mark.parametrize(
    ("patterns", "sites"),
    [
        (("stages.0.1.1",), ["stages.0.1.1"]),
        (("stages.*",), ["stages.0", "stages.1"]),
        (("stages.*.0",), ["stages.0.0", "stages.1.0"]),
        (("branches.*",), ["branches.left", "branches.right"]),
        (("branches.[lr]*t", "stages.?"), ["stages.0", "stages.1", "branches.left", "branches.right"]),
        (("stages.1", "stages.*", "head"), ["stages.0", "stages.1", "head"]),
    ],
)
def test_sites_by_path_and_glob_on_any_module(patterns: tuple[str, ...], sites: list[str]) -> None:
    """Index paths, names and globs; in the model's order, each once; a seed can train at every one, unnoticed."""
    torch.manual_seed(1)
    model = Nested()
    run = growing(make_task(model=model), patterns, min_training_steps=100_000)
    assert [site.site for site in run.bridge.snapshot().sites] == sites
    losses: list[float] = []
    recording_losses(run, losses)
    for site in sites:
        run.submit(SeedCommand(Operation.GERMINATE, site=site, blueprint_id="residual_mlp", auto_advance=True))
    run.steps(12)
    assert [seed.stage for seed in run.bridge.snapshot().seeds] == [Stage.TRAINING] * len(sites)
    torch.manual_seed(1)
    plain = make_task(model=Nested())
    torch.manual_seed(7)
    assert losses == bare_losses(plain, 12)


# A transformer


def test_a_seed_grows_in_the_transformer() -> None:
    """The byte task: unnoticed until it blends, then through every stage into the host's optimizer."""

    def build() -> Task:
        torch.manual_seed(0)
        return byte_text.build(num_steps=0, batch_size=8)

    run = growing(build(), ("blocks.0",), min_training_steps=60, alpha_steps=40, probe_units=64)
    losses: list[float] = []
    recording_losses(run, losses)
    run.steps(60)
    seed_id = apply(run, Operation.GERMINATE, site="blocks.0", blueprint_id="gated_ffn", auto_advance=True)
    until(run, seed_id, Stage.BLENDING)
    step = run.view.global_step
    plain = build()
    torch.manual_seed(7)
    assert losses[:step] == bare_losses(plain, step)
    until(run, seed_id, Stage.FOSSILIZED, limit=300)
    seed = run.bridge.snapshot().seeds[0]
    assert seed.blend_mode is BlendMode.BERNOULLI
    assert run.view.num_grown_parameters == seed.cost.num_parameters
    before = [p.detach().clone() for p in run.trainer.executor.grown_parameters()]
    run.steps(2)
    assert any(not torch.equal(a, b) for a, b in zip(before, run.trainer.executor.grown_parameters(), strict=True))
