"""The loop and its safe point, with a real model, real optimizers and the real seed executor."""

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from esperd.config.settings import GrowthSettings, PolicySettings, RunSettings, Settings, TrainingSettings
from esperd.examples import digits
from esperd.leyline.commands import (
    BreakerCommand,
    EmergencyCommand,
    HyperparameterCommand,
    Outcome,
    PauseCommand,
    PolicyPresence,
    ResetOptimizerCommand,
    ResumeCommand,
    SeedCommand,
    StopCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import BreakerState, CommandState, EmergencyLevel, Operation, Stage, TrainerPhase
from tests.unit.tolaria.harness import Run, bare_losses, make_model, make_task, recording_losses


def settings(num_steps: int = 0, **parts: Any) -> Settings:
    training = parts.pop("training", TrainingSettings(device="cpu"))
    return Settings(run=RunSettings(num_steps=num_steps, **parts.pop("run", {})), training=training, **parts)


def growing(**growth: Any) -> Settings:
    return settings(growth=GrowthSettings(sites=("0",), probe_units=8, **growth))


def germinate(**fields: Any) -> SeedCommand:
    return SeedCommand(Operation.GERMINATE, site="0", blueprint_id="residual_linear", **fields)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_training_is_bit_identical_to_the_plain_loop(clip: float):
    """Losses, weights, buffers and optimizer state equal those of a bare loop, through epochs, logs and validation."""
    run = Run(settings=settings(training=TrainingSettings(device="cpu", clip_grad_norm=clip, log_every_steps=3)))
    losses: list[float] = []
    recording_losses(run, losses)
    torch.manual_seed(7)
    run.begin().steps(40)
    plain = make_task()
    torch.manual_seed(7)
    assert losses == bare_losses(plain, 40, clip=clip)
    for ours, theirs in zip(run.task.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    for p, q in zip(run.task.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(run.task.optimizer.state[p]["exp_avg_sq"], plain.optimizer.state[q]["exp_avg_sq"])


def test_the_host_is_bit_identical_while_a_seed_trains():
    """A seed in GERMINATED and TRAINING changes no loss and no weight of the host."""
    run = Run(settings=growing(min_training_steps=1000))
    losses: list[float] = []
    recording_losses(run, losses)
    torch.manual_seed(7)
    run.begin().submit(germinate(auto_advance=True), at_step=5)
    run.steps(40)
    plain = make_task()
    torch.manual_seed(7)
    assert losses == bare_losses(plain, 40)
    assert run.bridge.snapshot().seeds[0].stage is Stage.TRAINING
    assert all(map(torch.equal, run.task.optimizer.param_groups[0]["params"], plain.model.parameters()))


def test_a_run_goes_from_starting_to_finished():
    """It ends after its steps with a validation, a last packet and a closed box."""
    run = Run(settings=settings(12))
    late = run.submit(PauseCommand(), at_step=1000)
    run.trainer.run()
    assert run.view.phase is TrainerPhase.FINISHED
    assert run.view.global_step == 12
    assert run.view.epoch == 2
    assert math.isfinite(run.view.val_loss)
    assert 0.0 <= run.view.metrics["accuracy"] <= 1.0
    assert [packet.reason for packet in run.packets()] == ["epoch_end", "epoch_end", "run_finished"]
    assert math.isfinite(run.packets()[-1].probe_loss)
    assert run.outcome(late).refusal.reason == "TRAINER_NOT_RUNNING"  # type: ignore[union-attr]
    with pytest.raises(EsperdError, match="FINISHED"):
        run.bridge.reserve()


def test_the_floating_point_operations_are_counted():
    """A step's operations are those of its matrix products, forward and backward."""
    run = Run(settings=settings(4))
    run.trainer.run()
    forward = 2 * 8 * (6 * 8 + 8 * 2)
    input_gradient = 2 * 8 * (8 * 2)
    assert run.view.host_step_flops == 2 * forward + input_gradient
    assert run.view.train_flops >= 4 * run.view.host_step_flops


def test_validation_reads_the_whole_split_and_disturbs_nothing():
    """The smaller last batch counts by its size; modes and generators are as before."""
    run = Run().begin()
    run.task.model[1].eval()  # a layer that the user keeps frozen
    modes = [module.training for module in run.task.model.modules()]
    state = torch.get_rng_state()
    run.trainer.safe_point.validate()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in run.task.model.modules()] == modes
    run.task.model.eval()
    inputs, targets = run.task.eval_data.inputs, run.task.eval_data.targets  # type: ignore[attr-defined]
    whole = functional.cross_entropy(run.task.model(inputs), targets).item()
    assert run.view.val_loss == pytest.approx(whole, rel=1e-6)


def test_progress_keeps_the_revision_and_a_change_raises_it():
    """A watcher is told of changes, not of every step."""
    run = Run().begin()
    revision = run.bridge.snapshot().revision
    run.steps(20)
    assert run.bridge.snapshot().revision == revision
    assert run.view.global_step == 20
    run.submit(HyperparameterCommand("host", {"lr": 0.1}))
    run.steps(1)
    assert run.bridge.snapshot().revision == revision + 1
    assert run.outcome("c1").revision == revision + 1


def test_packets_go_out_at_their_interval_with_comparable_losses():
    """Probe losses are measured on the same held-out units each time."""
    run = Run(settings=settings(policy=PolicySettings(packet_every_steps=4))).begin()
    run.steps(8)
    packets = [packet for packet in run.packets() if packet.reason == "interval"]
    assert [packet.snapshot.run.global_step for packet in packets] == [4, 8]
    assert all(math.isfinite(packet.probe_loss) for packet in packets)
    first = run.trainer.parts.probe_set.fixed(6)[0]
    assert torch.equal(first, run.trainer.parts.probe_set.fixed(6)[0])


def test_the_steering_policy_gets_packets_at_its_own_interval():
    """Besides the configured one and while it is there; never denser than the log, so that it cannot slow the run."""
    training = TrainingSettings(device="cpu", log_every_steps=2)
    run = Run(settings=settings(training=training, policy=PolicySettings(packet_every_steps=5))).begin()

    def steps_of_packets(count: int) -> list[int]:
        before = len(run.packets())
        run.steps(count)
        return [p.snapshot.run.global_step for p in run.packets()[before:] if p.reason == "interval"]

    run.submit(PolicyPresence(True, "tamiyo", 4))
    assert steps_of_packets(11) == [4, 5, 8, 10]
    run.submit(PolicyPresence(True, "tamiyo", 1))
    assert steps_of_packets(6) == [14, 15, 16]
    run.submit(PolicyPresence(False, "gone"))
    assert steps_of_packets(6) == [20]


def test_each_date_is_kept_at_its_own_interval():
    """Logs, validations and packets come at multiples of their own; an elevated run logs five times as often."""
    training = TrainingSettings(device="cpu", log_every_steps=10, validate_every_steps=6)
    run = Run(settings=settings(training=training, policy=PolicySettings(packet_every_steps=4))).begin()
    run.steps(13).submit(EmergencyCommand(EmergencyLevel.ELEVATED, "heat"))
    run.steps(5).submit(EmergencyCommand(EmergencyLevel.UNSPECIFIED, "heat"))
    run.steps(13)
    samples, _ = run.bridge.take_samples()
    assert [step for name, _, step, *_ in samples if name == "tolaria.step.loss"] == [10, 16, 18, 20, 30]
    assert [step for name, _, step, *_ in samples if name == "tolaria.validation.loss"] == [6, 12, 18, 24, 30]
    packets = [packet.snapshot.run.global_step for packet in run.packets() if packet.reason == "interval"]
    assert packets == [4, 8, 16, 20, 28]


# Commands


def test_a_learning_rate_change_takes_effect_and_lasts():
    """It survives the schedule's next step."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 10 else 0.5)
    run = Run(make_task(model=model, optimizer=optimizer, scheduler=schedule)).begin()
    run.submit(HyperparameterCommand("host", {"lr": 0.04}))
    run.steps(3)
    assert run.trainer.optimizers.host_learning_rate == pytest.approx(0.04)
    run.steps(10)
    assert run.trainer.optimizers.host_learning_rate == pytest.approx(0.02)


def test_bad_commands_are_rejected_with_the_reason_and_change_nothing():
    """Reject, never clamp, never guess."""
    run = Run().begin()
    before = run.bridge.snapshot()
    bad = {
        run.submit(HyperparameterCommand("host", {"lr": -1.0})): "HYPERPARAMETER_RANGE",
        run.submit(HyperparameterCommand("host", {"speed": 1.0})): "HYPERPARAMETER_UNKNOWN",
        run.submit(HyperparameterCommand("seed", {"lr": 0.1}, seed_id=9)): "OPTIMIZER_TARGET",
        run.submit(ResetOptimizerCommand("nobody")): "OPTIMIZER_TARGET",
        run.submit(BreakerCommand("nothing", BreakerState.OPEN)): "BREAKER_UNKNOWN",
        run.submit(EmergencyCommand(EmergencyLevel.UNSPECIFIED, "none")): "EMERGENCY_UNKNOWN",
        run.submit(SeedCommand(Operation.CULL, seed_id=4)): "SEED_UNKNOWN",
        run.submit(germinate()): "SITE_UNKNOWN",
    }
    run.steps(1)
    for command_id, reason in bad.items():
        outcome = run.outcome(command_id)
        assert outcome.state is CommandState.REJECTED
        assert outcome.refusal is not None
        assert outcome.refusal.reason == reason
    assert run.bridge.snapshot().revision == before.revision
    assert run.bridge.snapshot().optimizers == before.optimizers


def test_resetting_the_optimizer_forgets_its_statistics():
    """The next step starts moments anew."""
    run = Run().begin().steps(3)
    run.submit(ResetOptimizerCommand("host"))
    run.steps(1)
    assert not run.task.optimizer.state
    run.steps(1)
    assert run.task.optimizer.state


def run_in_thread(run: Run) -> threading.Thread:
    thread = threading.Thread(target=run.trainer.run)
    thread.start()
    return thread


def wait_for(run: Run, condition: Any) -> None:
    """Look at the published state until it holds (the training thread gets there by itself)."""
    for _ in range(20_000):
        if condition(run.view):
            return
        threading.Event().wait(0.001)
    raise AssertionError(f"never came: {run.view}")


def test_a_paused_trainer_stands_and_still_answers():
    """Pause holds the step count; structural and scalar commands apply meanwhile; resume goes on."""
    run = Run(settings=growing())
    thread = run_in_thread(run)
    wait_for(run, lambda view: view.global_step > 0)
    run.submit(PauseCommand(), command_id="pause")
    wait_for(run, lambda view: view.phase is TrainerPhase.PAUSED)
    step = run.view.global_step
    run.submit(HyperparameterCommand("host", {"lr": 0.5}), command_id="lr")
    run.submit(germinate(), command_id="germinate")
    wait_for(run, lambda _: len(run.bridge.snapshot().seeds) == 1)
    assert run.view.learning_rate == 0.5
    assert run.view.global_step == step
    run.submit(ResumeCommand(), command_id="resume")
    wait_for(run, lambda view: view.global_step > step)
    run.submit(StopCommand(), command_id="stop")
    thread.join(30)
    assert run.view.phase is TrainerPhase.FINISHED
    for command_id in ("pause", "lr", "germinate", "resume", "stop"):
        assert run.outcome(command_id).state is CommandState.APPLIED


def test_a_halt_stops_the_run_until_it_is_cleared():
    """HALT holds training at the safe point; resume is refused; clearing goes on."""
    run = Run()
    thread = run_in_thread(run)
    wait_for(run, lambda view: view.global_step > 0)
    run.submit(EmergencyCommand(EmergencyLevel.HALT, "fire"), command_id="halt")
    wait_for(run, lambda view: view.phase is TrainerPhase.HALTED)
    step = run.view.global_step
    run.submit(ResumeCommand(), command_id="resume")
    wait_for(run, lambda _: any(isinstance(event, Outcome) and event.command_id == "resume" for event in run.take()))
    run.submit(EmergencyCommand(EmergencyLevel.UNSPECIFIED, "fire"), command_id="clear", reason="out")
    wait_for(run, lambda view: view.global_step > step)
    run.bridge.request_stop()
    thread.join(30)
    assert run.view.phase is TrainerPhase.STOPPING
    refused = run.outcome("resume").refusal
    assert refused is not None
    assert refused.reason == "RUN_NOT_TRAINING"
    assert run.outcome("clear").state is CommandState.APPLIED
    assert [notice.attributes["emergency_id"] for notice in run.notices("emergency.cleared")] == ["fire"]


def test_a_run_may_start_paused_and_be_stopped_there():
    """Nothing is trained before the resume command."""
    run = Run(settings=settings(run={"start_paused": True}))
    thread = run_in_thread(run)
    wait_for(run, lambda view: view.phase is TrainerPhase.PAUSED)
    run.submit(StopCommand())
    thread.join(30)
    assert run.view.global_step == 0
    assert run.view.phase is TrainerPhase.FINISHED


def test_the_first_step_waits_for_a_policy():
    """With wait_for_policy_s the run starts when the policy is there."""
    run = Run(settings=settings(3, run={"wait_for_policy_s": 3600.0}))
    run.submit(PolicyPresence(True, "tamiyo"), command_id="here")
    run.trainer.run()
    assert run.outcome("here").global_step == 0
    assert run.view.global_step == 3


@pytest.mark.parametrize(("patience_s", "notices"), [(0.01, 1), (0.0, 0)])
def test_a_policy_that_never_comes_is_told(patience_s: float, notices: int):
    """The run begins without it once the wait is over; where nobody was to be waited for, nothing is told."""
    run = Run(settings=settings(3, run={"wait_for_policy_s": patience_s}))
    run.trainer.run()
    assert run.view.global_step == 3
    assert len(run.notices("policy.missed")) == notices


def test_a_lost_policy_makes_the_run_conservative_until_it_returns():
    """No new seeds meanwhile, and no step is lost."""
    run = Run(settings=growing()).begin()
    run.submit(PolicyPresence(False, "gone"))
    refused = run.submit(germinate())
    run.steps(1)
    assert run.view.emergency_level is EmergencyLevel.CONSERVATIVE
    assert run.outcome(refused).refusal.reason == "RUN_CONSERVATIVE"  # type: ignore[union-attr]
    run.submit(PolicyPresence(True, "back"))
    accepted = run.submit(germinate())
    run.steps(1)
    assert run.outcome(accepted).state is CommandState.APPLIED
    assert run.view.global_step == 2


def test_an_open_breaker_makes_the_run_conservative():
    """Set by hand it holds seeds back until it is closed by hand."""
    run = Run().begin()
    run.submit(BreakerCommand("isolation", BreakerState.OPEN))
    run.steps(1)
    assert run.view.emergency_level is EmergencyLevel.CONSERVATIVE
    run.submit(BreakerCommand("isolation", BreakerState.CLOSED))
    run.steps(1)
    assert run.view.emergency_level is EmergencyLevel.UNSPECIFIED


# Failures


class PoisonedBatches:
    """A few good batches, then a number of poisoned ones, then good ones."""

    def __init__(self, good: int, bad: int) -> None:
        self.good, self.bad = good, bad
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        inputs, targets = torch.ones(4, 6), torch.tensor([0, 1, 0, 1])
        while True:
            self.count += 1
            is_bad = self.good < self.count <= self.good + self.bad
            yield (inputs * math.nan if is_bad else inputs), targets


def make_plain_task(**changes: Any) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    return make_task(model=model, **changes)


def test_a_non_finite_loss_never_reaches_the_weights():
    """The optimizer step is left out, the run is conservative at once, and heals with healthy windows."""
    run = Run(make_plain_task(train_data=PoisonedBatches(5, 2))).begin()
    run.steps(7)
    assert run.view.emergency_level is EmergencyLevel.CONSERVATIVE
    assert all(torch.isfinite(p).all() for p in run.task.model.parameters())
    run.steps(200)
    assert run.view.emergency_level is EmergencyLevel.UNSPECIFIED
    assert run.trainer.parts.loss_window.num_non_finite == 2


def test_repeated_non_finite_losses_halt_the_run():
    """What skipping does not cure, and no good state can, stops at the safe point; the daemon goes on answering."""
    run = Run(make_plain_task(train_data=PoisonedBatches(5, 1000)))
    thread = run_in_thread(run)
    wait_for(run, lambda view: view.phase is TrainerPhase.HALTED)
    assert run.view.global_step == 8
    run.submit(StopCommand())
    thread.join(30)
    assert all(torch.isfinite(p).all() for p in run.task.model.parameters())


def test_a_failing_task_ends_the_run_with_its_own_frames():
    """The user's exception becomes phase FAILED and a notice; commands are refused afterwards."""

    def bad_loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("my mistake")

    run = Run(make_task(loss_fn=bad_loss, step_flops=1.0))
    waiting = run.submit(PauseCommand(), at_step=9)
    run.trainer.run()
    assert run.view.phase is TrainerPhase.FAILED
    assert run.view.failure == "ZeroDivisionError: my mistake"
    (failure,) = run.notices("run.failed")
    assert "bad_loss" in failure.attributes["traceback"]
    assert "esperd/tolaria/" not in failure.attributes["traceback"]
    assert run.outcome(waiting).refusal.reason == "TRAINER_NOT_RUNNING"  # type: ignore[union-attr]


def test_a_fault_in_carrying_out_a_command_ends_neither_run_nor_others():
    """The command fails with INTERNAL, the next one is applied, and the breaker counts."""
    run = Run(settings=growing()).begin()

    def broken(*_: Any) -> int:
        raise KeyError("ours")

    apply = run.trainer.executor.apply
    run.trainer.executor.apply = broken  # type: ignore[method-assign]
    for number in range(3):
        run.submit(germinate(), command_id=f"bad{number}")
    good = run.submit(HyperparameterCommand("host", {"lr": 0.2}))
    run.steps(1)
    run.trainer.executor.apply = apply  # type: ignore[method-assign]
    for number in range(3):
        outcome = run.outcome(f"bad{number}")
        assert (outcome.state, outcome.refusal.reason) == (CommandState.FAILED, "INTERNAL")  # type: ignore[union-attr]
    assert run.outcome(good).state is CommandState.APPLIED
    assert run.view.emergency_level is EmergencyLevel.CONSERVATIVE
    run.steps(600)
    assert run.view.emergency_level is EmergencyLevel.UNSPECIFIED


def test_data_without_batches_fails_with_a_clear_error():
    """An empty training set is the task's fault, said in the catalogue's words."""
    with pytest.raises(EsperdError, match="gave no batch") as failure:
        Run(make_task(train_data=[]))
    assert failure.value.reason == "TASK_INVALID"


def test_a_seed_lives_and_joins_the_host():
    """From DORMANT to FOSSILIZED by auto-advance on the digits: its parameters, operations and optimizer state join."""
    growth = GrowthSettings(sites=("block2",), min_training_steps=40, alpha_steps=20)
    torch.manual_seed(0)
    run = Run(digits.build(num_steps=0), settings(growth=growth)).begin().steps(100)
    bare_flops = run.view.host_step_flops
    run.submit(SeedCommand(Operation.GERMINATE, site="block2", blueprint_id="residual_conv", auto_advance=True))
    while not run.view.num_grown_parameters:
        assert run.view.global_step < 600, run.bridge.snapshot().seeds
        run.steps(1)
    (seed,) = run.bridge.snapshot().seeds
    assert seed.stage is Stage.FOSSILIZED
    assert run.view.num_grown_parameters == seed.cost.num_parameters
    (group,) = run.bridge.snapshot().optimizers
    assert (group.owner, group.num_parameters) == ("host", 426 + seed.cost.num_parameters)
    assert run.view.host_step_flops == bare_flops + 64 * (seed.cost.forward_flops + seed.cost.backward_flops)
    grown = run.trainer.executor.grown_parameters()
    run.trainer.optimizers.check_ownership(grown)
    assert all("exp_avg" in run.task.optimizer.state[parameter] for parameter in grown)
    before = [parameter.clone() for parameter in grown]
    run.steps(1)
    assert not any(map(torch.equal, grown, before))
