"""No clock decides anything in a run that must repeat; and every surgery has a place where a test may stop it."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from esperd.leyline.failpoints import set_hook
from esperd.leyline.views import TransitionEvent
from esperd.leyline.vocabulary import Operation, Stage
from tests.unit.kasmina.harness import Run, quick
from tests.unit.tolaria.restoring import SETTINGS, World, assert_equal


class Erratic:
    """A clock that jumps both ways."""

    def __init__(self, random_seed: int) -> None:
        self._random = random.Random(random_seed)

    def __call__(self) -> float:
        return self._random.uniform(0.0, 1e9)


def life(random_seed: int) -> tuple[list[Any], dict[str, Any]]:
    """A seed that is fossilized and one that is culled and forgotten, under a clock of their own."""
    settings = replace(SETTINGS, max_step_time_ratio=1.0)
    world = World(settings=settings, is_clock_trusted=False, clock=Erratic(random_seed))
    world.grow(world.germinate(), Stage.FOSSILIZED)
    culled = world.germinate(site="stem")
    world.grow(culled, Stage.BLENDING)
    world.steps(5)
    world.apply(Operation.CULL, culled)
    world.steps(12)
    assert world.stage(culled) is Stage.DORMANT
    told = [replace(event, unix_s=0.0) for event in world.events]
    return told, world.saved()


def test_two_clocks_give_one_run() -> None:
    """Transitions, evidence and the whole state are the same whatever the clock says."""
    one, other = life(1), life(2)
    assert one[0] == other[0]
    assert_equal(one[1], other[1])
    gates = [event.gate for event in one[0] if isinstance(event, TransitionEvent) and event.gate is not None]
    timed = [item for gate in gates for item in gate.evidence if item.name == "step_time_ratio"]
    assert timed
    assert {(item.passed, item.detail) for item in timed} == {(True, "left out: deterministic run")}


def test_an_embargo_in_steps_asks_no_clock() -> None:
    """A clock that is put back does not hold a site for ever."""
    run = Run(settings=quick(embargo_steps=3))
    seed_id = run.germinate()
    run.step()
    run.apply(Operation.CULL, seed_id)
    run.clock.now_s = 1.0
    run.steps(6)
    assert run.stage(seed_id) is Stage.DORMANT
    run.germinate()


@pytest.fixture
def passed() -> Iterator[list[str]]:
    """The failpoints that were passed."""
    names: list[str] = []
    set_hook(names.append)
    yield names
    set_hook(None)


def test_every_surgery_passes_its_failpoint(passed: list[str]) -> None:
    """Graft, fossilization and cull, each once, and nothing between them."""
    world = World()
    seed_id = world.germinate()
    for stage, count in ((Stage.TRAINING, 0), (Stage.BLENDING, 1), (Stage.PROBATIONARY, 1), (Stage.FOSSILIZED, 2)):
        world.grow(seed_id, stage)
        assert passed == ["surgery.middle"] * count
    world.apply(Operation.CULL, world.germinate())
    assert passed == ["surgery.middle"] * 3
