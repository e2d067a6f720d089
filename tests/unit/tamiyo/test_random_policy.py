"""The baseline that grows at random."""

import random

from esper.tamiyo.decision import Germinate
from esper.tamiyo.random_policy import RandomPolicy, RandomSettings

from tests.unit.tamiyo.moments import flat, moment, site


def grown(random_seed: int, **settings: float) -> list[tuple[int, Germinate]]:
    policy = RandomPolicy(RandomSettings(**settings), random.Random(random_seed))  # type: ignore[arg-type]
    found = []
    for step in range(25, 1501, 25):
        for command in policy.decide(moment(step, history=flat(step))).commands:
            assert isinstance(command, Germinate)
            found.append((step, command))
    return found


def test_same_seed_same_growth() -> None:
    """The random seed alone decides; another seed decides otherwise."""
    assert grown(1) == grown(1)
    assert len({str(grown(n)) for n in range(8)}) > 1


def test_expected_number_of_germinations() -> None:
    """Over many runs the mean number of germinations is the one that was asked for."""
    counts = [len(grown(n, germinations_per_run=4.0)) for n in range(200)]
    assert 3.5 < sum(counts) / len(counts) < 4.5


def test_daemon_decides_about_what_grew() -> None:
    """Each seed is advanced to the end by the daemon's gates."""
    assert {command.until for _, command in grown(0, germinations_per_run=20.0)} == {"FOSSILIZED"}


def test_no_vacancy_no_growth() -> None:
    """Where nothing is offered nothing grows."""
    policy = RandomPolicy(RandomSettings(germinations_per_run=1e9), random.Random(0))
    assert policy.decide(moment(sites=(site(vacant=False),))).commands == ()
