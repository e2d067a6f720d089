"""A run that is broken off and picked up again ends like one that never was; a rollback leads where it says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from esperd.config.settings import BudgetSettings, CheckpointSettings, Settings, TrainingSettings
from esperd.leyline.commands import (
    CheckpointCommand,
    Command,
    EmergencyCommand,
    HyperparameterCommand,
    Outcome,
    PauseCommand,
    Payload,
    ResumeCommand,
    RollbackCommand,
    SeedCommand,
)
from esperd.leyline.views import CheckpointEvent, NoticeEvent, RunResumed, TimelineEvent, TransitionEvent
from esperd.leyline.vocabulary import CommandState, EmergencyLevel, Operation, TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.past import PastCommand, RunPast, event_key
from esperd.tolaria import saved_state
from esperd.tolaria.state_tree import BufferPool, capture
from tests.unit.tolaria.growing import EAGER
from tests.unit.tolaria.harness import Run

SITE = "0"
NUM_STEPS = 120


def settings(**checkpoints: Any) -> Settings:
    chosen = {"every_steps": 40, "snapshot_every_steps": 10, "good_after_steps": 5, **checkpoints}
    growth = replace(EAGER, sites=("0",), min_training_steps=8, error_level=0.4, max_candidates_per_site=4)
    return Settings(
        training=TrainingSettings(device="cpu", deterministic=True),
        growth=growth,
        budgets=BudgetSettings(anomaly_window=10),
        checkpoints=CheckpointSettings(**chosen),
    )


def germinate(blueprint: str = "residual_mlp") -> SeedCommand:
    return SeedCommand(Operation.GERMINATE, site=SITE, blueprint_id=blueprint, auto_advance=True)


SCRIPT: list[tuple[int, Payload]] = [
    (5, germinate()),
    (12, HyperparameterCommand("host", {"lr": 0.02})),
    (45, HyperparameterCommand("all", {"lr": 0.005})),
    (47, PauseCommand()),
    (47, ResumeCommand()),
    (60, germinate()),
    (83, SeedCommand(Operation.CULL, seed_id=2)),
    (96, germinate()),
]


class Journalled(Run):
    """A run whose events a journal would have: those of it up to a moment are the past of the next start."""

    def __init__(self, directory: Path, past: RunPast | None = None, **changes: Any) -> None:
        self.store = CheckpointStore(directory)
        read = None if past is None else (lambda **_: past)
        super().__init__(settings=settings(**changes), store=self.store, read_past=read, keeps_unsettled=True)
        self.commands: dict[str, Command] = {}

    def submit(self, payload: Payload, **fields: Any) -> str:
        command_id = super().submit(payload, **fields)
        self.commands[command_id] = self.bridge.box._lane[-1]
        return command_id

    def script(self, script: list[tuple[int, Payload]]) -> "Journalled":
        for step, payload in script:
            self.submit(payload, at_step=step, command_id=f"at{step}-{type(payload).__name__}")
        return self

    def past(self, after_sequence: int, after_step: int, first: "Journalled | None" = None) -> RunPast:
        """What a journal would say, when everything reported so far was durable."""
        commands = {**({} if first is None else first.commands), **self.commands}
        events = [*([] if first is None else first.take()), *self.take()]
        outcomes = {e.command_id: e for e in events if isinstance(e, Outcome)}
        told = [e for e in events if isinstance(e, TransitionEvent | NoticeEvent | CheckpointEvent | TimelineEvent)]
        later = [o for o in outcomes.values() if o.sequence > after_sequence]
        positions = [(o.timeline, o.global_step) for o in later]
        positions += [(e.timeline, getattr(e, "global_step", 0)) for e in told]
        settled = sorted(
            (PastCommand(commands[o.command_id], o, 0) for o in later if o.state is CommandState.APPLIED),
            key=lambda past: past.outcome.sequence,  # type: ignore[union-attr]
        )
        unsettled = tuple(PastCommand(c, None, 0) for c in commands.values() if c.command_id not in outcomes)
        return RunPast(
            settled=tuple(settled),
            unsettled=unsettled,
            last_sequence=max((o.sequence for o in outcomes.values()), default=0),
            horizon=max(positions, default=(0, 0)),
            revision_offset=0,
            event_keys=frozenset(map(event_key, told)),
            timelines=(),
        )

    def end(self) -> "Journalled":
        self.trainer._keeper.close()
        self.store.release()
        return self

    def until(self, step: int) -> "Journalled":
        """Train to a step; the steps of every timeline are counted."""
        while self.trainer.parts.progress.global_step < step:
            self.trainer.step()
        return self


def state_of(run: Run) -> dict[str, Any]:
    """Every tensor and number of the run that training depends on, as plain data."""
    captured = capture(saved_state.save(run.trainer.parts), BufferPool(torch.device("cpu")))
    tensors = {name: tensor.clone() for name, tensor in captured.tensors.items()}
    plain = dict(captured.plain)
    return {"tensors": tensors, "plain": plain}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["tensors"].keys() == other["tensors"].keys()
    different = [n for n, t in one["tensors"].items() if not torch.equal(t, other["tensors"][n])]
    assert not different
    for section in ("host", "growth", "optimizers"):
        assert one["plain"][section] == other["plain"][section]


def undisturbed(directory: Path, script: list[tuple[int, Payload]]) -> Journalled:
    run = Journalled(directory).script(script)
    run.begin()
    run.until(NUM_STEPS)
    return run.end()


@pytest.mark.parametrize("broken_off_at", [3, 20, 39, 40, 41, 47, 55, 62, 80, 83, 84, 100, 119])
def test_a_run_that_is_broken_off_ends_as_if_it_had_not_been(tmp_path: Path, broken_off_at: int):
    """At any step: weights, optimizers, seeds, schedules and random streams are equal bit for bit."""
    whole = undisturbed(tmp_path / "whole", SCRIPT)
    first = Journalled(tmp_path / "broken").script(SCRIPT)
    first.begin()
    first.until(broken_off_at)
    first.trainer._keeper._writer.wait_idle(30.0)  # type: ignore[union-attr]
    first.trainer._keeper.take_results()
    first.end()
    newest = [s.manifest for s in CheckpointStore.reader(tmp_path / "broken").list()][-1]
    past = first.past(newest.sequence, newest.global_step)
    second = Journalled(tmp_path / "broken", past)
    second.begin()
    resumed = [e for e in second.take() if isinstance(e, RunResumed)]
    assert resumed[0].global_step == newest.global_step
    second.until(NUM_STEPS)
    second.end()
    assert not second.notices("replay.diverged")
    assert_same(state_of(whole), state_of(second))
    outcomes = {e.command_id: e for e in [*first.take(), *second.take()] if isinstance(e, Outcome)}
    expected = {e.command_id: e for e in whole.take() if isinstance(e, Outcome)}
    plain = lambda o: (o.state, o.global_step, o.seed_id, o.timeline)  # noqa: E731
    assert {k: plain(o) for k, o in outcomes.items()} == {k: plain(o) for k, o in expected.items()}
    transitions = [event_key(e) for run in (first, second) for e in run.take() if isinstance(e, TransitionEvent)]
    assert transitions == [event_key(e) for e in whole.take() if isinstance(e, TransitionEvent)]


def test_the_script_makes_things_happen(tmp_path: Path):
    """A test of exact resume in which nothing grows would prove nothing."""
    run = undisturbed(tmp_path, SCRIPT)
    stages = {e.target.name for e in run.take() if isinstance(e, TransitionEvent)}
    assert {"GERMINATED", "TRAINING", "BLENDING", "CULLED"} <= stages
    assert all(e.state is CommandState.APPLIED for e in run.take() if isinstance(e, Outcome)), [
        e for e in run.take() if isinstance(e, Outcome)
    ]


@pytest.mark.parametrize("target", ["step", "checkpoint", "seed"])
def test_a_rollback_leads_where_it_says_and_training_from_there_is_what_it_was(tmp_path: Path, target: str):
    """The state is that of the step, bit for bit, and the timeline is new."""
    run = Journalled(tmp_path / "a")
    run.begin()
    run.until(40)
    before = state_of(run)
    run.script([(55, germinate())]).until(69)
    run.trainer._keeper._writer.wait_idle(30.0)  # type: ignore[union-attr]
    run.until(70)
    point = next(p for p in run.trainer.publish().restore_points if p.global_step == 40)
    payload = {
        "step": RollbackCommand(global_step=45),
        "checkpoint": RollbackCommand(checkpoint_id=point.checkpoint_id),
        "seed": RollbackCommand(before_seed_id=1),
    }[target]
    asked = run.submit(payload)
    run.steps(1)
    outcome = run.outcome(asked)
    assert outcome.state is CommandState.APPLIED, outcome
    assert (outcome.timeline, outcome.global_step) == (1, 71)
    assert run.view.timeline == 2
    (forked,) = [e for e in run.take() if isinstance(e, TimelineEvent)]
    assert (forked.parent, forked.fork_step, forked.left_step) == (1, 40, 71)
    assert forked.removed_seed_ids == (1,)
    assert_same(before, state_of(run))
    run.until(70)
    plain = Journalled(tmp_path / "b")
    plain.begin()
    plain.until(70)
    assert_same(state_of(plain), state_of(run))
    run.end()
    plain.end()


def test_a_checkpoint_by_command_is_settled_when_it_is_durable(tmp_path: Path):
    """APPLIED says that the files are there."""
    run = Journalled(tmp_path)
    run.begin()
    asked = run.submit(CheckpointCommand("before the storm"))
    run.steps(1)
    run.trainer._keeper._writer.wait_idle(30.0)  # type: ignore[union-attr]
    run.steps(1)
    assert run.outcome(asked).state is CommandState.APPLIED
    kept = {s.manifest.checkpoint_id: s.manifest for s in run.store.list()}
    assert kept["t001-s000000001-requested"].note == "before the storm"
    run.end()


def test_commands_that_wait_are_carried_out_after_the_restart(tmp_path: Path):
    """The daemon leaves: what was accepted keeps its step."""
    first = Journalled(tmp_path)
    first.script([(30, HyperparameterCommand("host", {"lr": 0.5}))]).begin()
    first.until(10)
    first.bridge.request_stop()
    first.trainer.run()
    first.store.release()
    assert not [e for e in first.take() if isinstance(e, Outcome)]
    manifest = CheckpointStore.reader(tmp_path).list()[-1].manifest
    assert (manifest.kind.name, manifest.global_step) == ("FINAL", 10)
    second = Journalled(tmp_path, first.past(manifest.sequence, 10))
    second.begin()
    second.until(31)
    second.end()
    (outcome,) = [e for e in second.take() if isinstance(e, Outcome)]
    assert (outcome.state, outcome.global_step) == (CommandState.APPLIED, 30)
    assert second.view.phase is TrainerPhase.TRAINING


def test_a_command_that_came_by_journal_and_by_box_is_carried_out_once(tmp_path: Path):
    """Accepted by this start before its trainer had read the journal: it is in both, and is one command."""
    first = Journalled(tmp_path)
    first.script([(30, germinate())]).begin()
    first.until(10)
    first.bridge.request_stop()
    first.trainer.run()
    first.store.release()
    manifest = CheckpointStore.reader(tmp_path).list()[-1].manifest
    second = Journalled(tmp_path, first.past(manifest.sequence, 10))
    second.script([(30, germinate())])
    second.begin()
    second.until(31)
    second.end()
    (outcome,) = [e for e in second.take() if isinstance(e, Outcome)]
    assert (outcome.state, outcome.global_step) == (CommandState.APPLIED, 30)
    assert [seed.seed_id for seed in second.bridge.snapshot().seeds] == [1]


def test_a_run_that_halts_saves_its_state_at_once(tmp_path: Path):
    """Once for each rise of the level, under a name that says why."""
    run = Journalled(tmp_path)
    run.begin()
    run.steps(3)
    run.bridge.submit_urgent(Command("e1", EmergencyCommand(EmergencyLevel.CONSERVATIVE, "fire"), "operator"))
    run.steps(3)
    run.trainer._keeper._writer.wait_idle(30.0)  # type: ignore[union-attr]
    kept = [s.manifest.checkpoint_id for s in run.store.list() if s.manifest.kind.name == "EMERGENCY"]
    assert kept == ["t001-s000000005-emergency"]
    run.end()
