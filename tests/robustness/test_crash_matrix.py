"""The crash matrix: a daemon is killed at a named place while a kind of command is in flight, and started again.

Whatever the place and the kind, the run then ends as the undisturbed one did: the same weights, optimizers, seeds and
random streams bit for bit, the same outcome at the same step of every command, the same story of every seed.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.robustness.comparison import differences, outcomes
from tests.robustness.crashing_daemon import CRASHED, Crash
from tests.robustness.history import History
from tests.robustness.matrix import FAILPOINTS, KINDS, Cell, diagonals
from tests.robustness.mutants import MUTANTS, Mutant
from tests.robustness.performance import Performance
from tests.robustness.processes import PlainLauncher, PreloadedLauncher
from tests.robustness.script import OVERRIDES, REQUESTS
from tests.robustness.validators import VALIDATORS, all_violations

_ENDED = (CRASHED, -9)
EXPECTED_REFUSALS = {
    "graft-early": "SEED_DWELL",
    "graft-2": "GATE_FAILED",
    "graft-6": "GATE_FAILED",
    "rate-never": "COMMAND_CANCELLED",
}
"""What the script asks for in vain, on purpose: a refusal that measures has to be done again as well."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """The undisturbed run."""

    folder: Path
    history: History


@pytest.fixture(scope="module")
def quiet(quiet_folder: Path, launcher: PreloadedLauncher) -> Iterator[Quiet]:
    """The script, performed once without any disturbance."""
    with closing(Performance(quiet_folder, launcher, OVERRIDES)) as performance:
        performance.perform()
        yield Quiet(quiet_folder, performance.history())


def test_the_undisturbed_run_does_what_the_script_says(quiet: Quiet) -> None:
    """Every request is applied but for those that are meant to be refused, and every validator passes."""
    refused = {name: reason for name, (*_, reason) in outcomes(quiet.history).items() if reason}
    assert refused == EXPECTED_REFUSALS
    assert outcomes(quiet.history).keys() >= {name for name in REQUESTS if REQUESTS[name].kind != "cancel_command"}
    assert all_violations(quiet.history) == ()


@pytest.mark.parametrize(("name", "mutant"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_of_the_recorded_run_is_caught(quiet: Quiet, name: str, mutant: Mutant) -> None:
    """What a daemon has written, changed in one place, is found wrong by the validator that is there for it."""
    assert VALIDATORS[name](mutant(quiet.history))


def test_a_plain_start_computes_what_a_preloaded_one_does(quiet: Quiet, folder: Path) -> None:
    """The daemons of the matrix are no special ones: `esperd serve` ends with the same bits."""
    with closing(Performance(folder, PlainLauncher(), OVERRIDES)) as performance:
        performance.perform()
        assert differences(quiet.folder, folder, quiet.history, performance.history()) == ()


def test_a_run_that_crashed_ends_as_if_it_had_not(
    quiet: Quiet, folder: Path, launcher: PreloadedLauncher, cell: Cell
) -> None:
    """One cell of the matrix."""
    crashes = cell.crashes()
    with closing(Performance(folder, launcher, OVERRIDES, list(crashes))) as performance:
        performance.perform()
        history = performance.history()
        expected = (0,) if cell.failpoint == "terminated" else _ENDED
        assert all(status in expected for status in performance.statuses), performance.log
        assert len(performance.statuses) == len(crashes), f"it did not crash\n{performance.log}"
        assert all_violations(history) == (), performance.log
        assert differences(quiet.folder, folder, quiet.history, history) == (), performance.log


WITH_WORKERS = (
    *OVERRIDES,
    "run.task_options.loader=true",
    "run.task_options.num_workers=1",
    "run.task_options.batch_size=2",
)
"""An epoch has 128 steps, so that crashes lie inside of one."""


@pytest.fixture
def plain() -> Iterator[PlainLauncher]:
    """Starts daemons as a user does, and leaves none of their data workers behind."""
    with closing(PlainLauncher()) as found:
        yield found


def test_a_run_fed_by_data_workers_goes_on_in_the_middle_of_an_epoch(
    quiet_workers: Path, folder: Path, plain: PlainLauncher
) -> None:
    """Order, augmentations that the worker draws, and all that follows from them are those of the undisturbed run."""
    crashes = [Crash("checkpoint.after_rename", hit=hit, action=action) for hit, action in ((3, "exit"), (4, "kill"))]
    with closing(Performance(quiet_workers, plain, WITH_WORKERS)) as quiet_performance:
        quiet_performance.perform()
        with closing(Performance(folder, plain, WITH_WORKERS, crashes)) as performance:
            performance.perform()
            history = performance.history()
            assert performance.statuses == [CRASHED, -9], performance.log
            assert all_violations(history) == (), performance.log
            found = differences(quiet_workers, folder, quiet_performance.history(), history)
            assert found == (), performance.log


def test_the_selection_meets_every_kind_and_every_failpoint() -> None:
    """The matrix that is run by default has each of them twice at least, and a dozen failpoints."""
    cells = list(diagonals())
    assert len(FAILPOINTS) >= 12
    assert {cell.kind for cell in cells} == set(KINDS)
    assert {cell.failpoint for cell in cells} == set(FAILPOINTS)
