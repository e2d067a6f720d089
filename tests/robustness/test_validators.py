"""Every validator passes a right history, and says what is wrong with a wrong one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.robustness.mutants import MUTANTS, Mutant, sound_history
from tests.robustness.validators import VALIDATORS, all_violations, weights_equal


def test_a_right_history_passes() -> None:
    """Nothing is found where nothing is wrong."""
    assert all_violations(sound_history()) == ()


@pytest.mark.parametrize(("name", "mutant"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_is_caught_by_its_validator(name: str, mutant: Mutant) -> None:
    """The one change is found by the validator that is there for it."""
    assert VALIDATORS[name](mutant(sound_history()))


def test_every_validator_has_a_mutant() -> None:
    """No validator stands that was never seen to fail."""
    assert {name for name, _ in MUTANTS.values()} == set(VALIDATORS)


def checkpoint(path: Path, **tensors: torch.Tensor) -> Path:
    """A checkpoint's directory with these tensors as its host."""
    path.mkdir()
    save_file(tensors, path / "host.safetensors")
    return path


def test_equal_weights_are_equal_bit_for_bit(tmp_path: Path) -> None:
    """The same bits pass, NaN included."""
    weights = {"a": torch.tensor([1.0, float("nan")]), "b": torch.arange(3), "c": torch.tensor(2.0)}
    one, other = checkpoint(tmp_path / "one", **weights), checkpoint(tmp_path / "other", **weights)
    assert weights_equal(one, other) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": torch.tensor([1.0, 2.0000002])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"b": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(1)},
    ],
    ids=["one bit", "another type", "another shape", "another name", "one more"],
)
def test_other_weights_are_found(tmp_path: Path, wrong: dict[str, torch.Tensor]) -> None:
    """One bit is enough."""
    one = checkpoint(tmp_path / "one", a=torch.tensor([1.0, 2.0]))
    assert weights_equal(one, checkpoint(tmp_path / "other", **wrong))


def test_minus_zero_is_another_zero(tmp_path: Path) -> None:
    """What compares equal as a number need not be the same bits."""
    one, other = torch.tensor([0.0]), torch.tensor([-0.0])
    assert weights_equal(checkpoint(tmp_path / "one", a=one), checkpoint(tmp_path / "other", a=other))


def test_a_checkpoint_without_tensors_equals_none(tmp_path: Path) -> None:
    """Two empty directories are no proof."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert weights_equal(tmp_path / "one", tmp_path / "other")


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    """A section that only one of them has differs."""
    one = checkpoint(tmp_path / "one", a=torch.tensor(1.0))
    other = checkpoint(tmp_path / "other", a=torch.tensor(1.0))
    save_file({"x": torch.tensor(1.0)}, other / "seeds.safetensors")
    assert weights_equal(one, other)
