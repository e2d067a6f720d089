"""History that is done again leads to where it had led, however often it is broken off."""

from dataclasses import replace
from pathlib import Path

from esperd.leyline.commands import Command, HyperparameterCommand, Outcome, ResetOptimizerCommand, StopCommand
from esperd.leyline.vocabulary import CommandState
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.past import PastCommand, RunPast
from esperd.tolaria.catch_up import CatchUp, Mark
from tests.unit.tolaria.test_keeping import flush
from tests.unit.tolaria.test_resuming import Journalled


def past_of(*commands: tuple[int, int]) -> RunPast:
    """Commands by step and number of their outcome."""
    payload = HyperparameterCommand("host", {"lr": 0.1})
    settled = tuple(
        PastCommand(
            Command(f"c{n}", payload, "operator"), Outcome(f"c{n}", CommandState.APPLIED, step, 1, None, 0, 1, n), 0
        )
        for step, n in commands
    )
    return RunPast(settled, (), 9, (1, 60), 0, frozenset(), (), base_revision=30)


def test_a_state_kept_in_history_leaves_what_is_still_to_be_repeated_behind_it():
    """The journal is further than the run: its own numbers would have the next start leave commands out."""
    catch_up = CatchUp(past_of((42, 5), (45, 7)), (1, 20), first_revision=1_000_000, journal_revision=11)
    assert catch_up.mark(9, 1_000_004) == Mark(4, 34, 11)
    catch_up.take((1, 42))
    assert catch_up.mark(9, 1_000_005).sequence == 6
    catch_up.take((1, 45))
    assert catch_up.mark(9, 1_000_006) == Mark(9, 36, 11)


def test_a_checkpoint_written_while_catching_up_knows_what_it_lacks(tmp_path: Path):
    """A run that is killed again goes on from it, and the commands behind it are repeated again."""
    script = [(42, HyperparameterCommand("host", {"lr": 0.02})), (45, HyperparameterCommand("all", {"lr": 0.005}))]
    first = Journalled(tmp_path, every_steps=20).script(list(script))
    first.begin()
    first.until(50)
    flush(first)
    first.end()
    damaged = tmp_path / "run" / "t001-s000000040" / "host.safetensors"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    second = Journalled(tmp_path, first.past(0, 0), every_steps=20)
    second.begin()
    second.until(46)
    flush(second)
    second.end()
    (manifest,) = [
        s.manifest for s in CheckpointStore.reader(tmp_path).list() if s.manifest.checkpoint_id.endswith("40-2")
    ]
    assert manifest.sequence == 0


def test_a_fault_sets_off_again_what_it_had_set_off(tmp_path: Path):
    """Emergencies and breakers decide what the run may do later on."""

    def faulty(*_: object) -> None:
        raise RuntimeError("fault")

    first = Journalled(tmp_path)
    first.begin()
    first.trainer.optimizers.reset = faulty  # type: ignore[method-assign,assignment]
    names = [first.submit(ResetOptimizerCommand("host", 0), at_step=45 + i) for i in range(3)]
    first.until(60)
    flush(first)
    first.end()
    settled = tuple(PastCommand(first.commands[name], first.outcome(name), 0) for name in names)
    second = Journalled(tmp_path, replace(first.past(0, 0), settled=settled))
    second.trainer.optimizers.reset = faulty  # type: ignore[method-assign,assignment]
    second.begin()
    assert second.view.global_step == 40
    second.until(60)
    assert second.trainer.safety.state.emergencies.keys() == first.trainer.safety.state.emergencies.keys()
    assert second.trainer.safety.breakers["executor"].state is first.trainer.safety.breakers["executor"].state
    assert not second.notices("command.failed")  # the journal has it
    second.end()


def test_a_stop_is_part_of_the_state(tmp_path: Path):
    """A checkpoint that holds the effect of a stop must not let the run go on."""
    run = Journalled(tmp_path)
    run.begin()
    run.until(5)
    run.submit(StopCommand(), at_step=6)
    run.steps(1)
    saved = run.trainer.parts.standing.state_dict()
    other = Journalled(tmp_path / "other")
    other.trainer.parts.standing.load_state_dict(saved)
    assert other.trainer.safe_point.is_over
    run.end()
    other.end()
