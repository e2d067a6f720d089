"""When a kept state counts as good, and when weights count as sound."""

import json
import math

import pytest
import torch

from esperd.tolaria.goodness import Goodness, StateKey, parameters_are_finite

AFTER = 50


def waiting(*steps: int, timeline: int = 1) -> Goodness:
    goodness = Goodness(AFTER)
    for step in steps:
        goodness.add(StateKey(timeline, step))
    return goodness


def test_a_state_is_good_when_enough_sound_steps_have_followed():
    """Not one step earlier; told once; the date of the next is known."""
    goodness = waiting(100, 120)
    assert goodness.due_step == 150
    assert goodness.healthy(149) == ()
    assert goodness.healthy(150) == (StateKey(1, 100),)
    assert goodness.due_step == 170
    assert goodness.healthy(151) == ()
    assert goodness.healthy(175) == (StateKey(1, 120),)
    assert goodness.due_step == -1


def test_keeping_a_state_twice_counts_once():
    """In memory and on disk it is the same state."""
    assert waiting(100, 100).healthy(150) == (StateKey(1, 100),)


def test_an_anomaly_makes_waiting_states_bad_for_ever():
    """What went wrong may have been in them already; states kept afterwards may become good."""
    goodness = waiting(100, 120)
    assert goodness.spoil() == (StateKey(1, 100), StateKey(1, 120))
    goodness.add(StateKey(1, 140))
    assert goodness.healthy(1000) == (StateKey(1, 140),)


def test_going_back_leaves_what_came_after():
    """What waited from before the fork goes on waiting: its steps are part of the new timeline too."""
    goodness = waiting(100, 120, 140)
    goodness.went_back(120)
    goodness.add(StateKey(2, 140))
    assert goodness.healthy(190) == (StateKey(1, 100), StateKey(1, 120), StateKey(2, 140))


def test_it_resumes_exactly():
    """Through JSON."""
    goodness, again = waiting(100, 120), Goodness(AFTER)
    again.load_state_dict(json.loads(json.dumps(goodness.state_dict())))
    assert again.due_step == goodness.due_step
    assert again.healthy(170) == goodness.healthy(170)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_element_that_is_not_finite_is_seen(bad: float, dtype: torch.dtype):
    """Among many parameters of several kinds; whole numbers and empty tensors do not matter."""
    parameters = [torch.ones(3, 4), torch.zeros(2, dtype=torch.long), torch.empty(0), torch.ones(5, dtype=dtype)]
    assert parameters_are_finite(parameters)
    assert parameters_are_finite([])
    parameters[-1][3] = bad
    assert not parameters_are_finite(parameters)
