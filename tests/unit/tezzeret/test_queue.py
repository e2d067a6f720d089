"""What is to be compiled, over restarts."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from esper.tezzeret.queue import MANY_INTERRUPTIONS, Queue, Stage, Wish


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def queue(path: Path) -> Iterator[Queue]:
    with closing(Queue(path)) as opened:
        yield opened


def wish(key: str, num_waiting_seeds: int = 0) -> Wish:
    return Wish(key, b"variant", "residual_mlp", 8, num_waiting_seeds)


def stage(queue: Queue, key: str) -> Stage:
    found = queue.job(key)
    assert found is not None
    return found.stage


def reopened(queue: Queue, path: Path) -> Queue:
    queue.close()
    return Queue(path)


def test_what_seeds_wait_for_goes_first(queue: Queue) -> None:
    """Then what came first; and it is noted when more seeds wait."""
    for key, waiting in (("a", 0), ("b", 0), ("c", 2)):
        queue.wish(wish(key, waiting), 0.0)
    queue.wish(wish("b", 3), 0.0)
    order = []
    while (job := queue.next(0.0)) is not None:
        order.append(job.variant_key)
        queue.begin(job.variant_key)
    assert order == ["b", "c", "a"]


def test_an_interrupted_attempt_is_made_again(queue: Queue, path: Path) -> None:
    """A compiler that was killed begins anew with what it was at, and the attempt does not count."""
    queue.wish(wish("a"), 0.0)
    queue.begin("a")
    with closing(reopened(queue, path)) as queue:
        job = queue.next(0.0)
        assert job is not None
        assert (job.num_attempts, job.num_interruptions) == (0, 1)


def test_what_ends_the_compiler_goes_last(queue: Queue, path: Path) -> None:
    """A job in whose midst it ended several times stands back, whatever waits for it."""
    queue.wish(wish("a", 9), 0.0)
    queue.wish(wish("b"), 0.0)
    for _ in range(MANY_INTERRUPTIONS):
        job = queue.next(0.0)
        assert job is not None
        assert job.variant_key == "a"
        queue.begin("a")
        queue = reopened(queue, path)
    with closing(queue):
        job = queue.next(0.0)
        assert job is not None
        assert job.variant_key == "b"


def test_a_stop_from_outside_does_not_count(queue: Queue) -> None:
    """Neither as an attempt nor as an interruption."""
    queue.wish(wish("a"), 0.0)
    queue.begin("a")
    queue.interrupted("a")
    job = queue.next(0.0)
    assert job is not None
    assert (job.num_attempts, job.num_interruptions) == (0, 0)


def test_a_failed_attempt_waits(queue: Queue) -> None:
    """It is not begun before its time, and then with the strategy that was chosen."""
    queue.wish(wish("a"), 0.0)
    queue.begin("a")
    queue.again("a", "no", strategy="conservative", not_before_s=10.0)
    assert queue.next(9.0) is None
    assert queue.next_time_s() == 10.0
    job = queue.next(10.0)
    assert job is not None
    assert (job.strategy, job.num_attempts, job.detail) == ("conservative", 1, "no")


def test_what_was_given_up_stays_so(queue: Queue, path: Path) -> None:
    """The same wish does not begin it again, also after a restart; an operator may."""
    queue.wish(wish("a"), 0.0)
    queue.begin("a")
    queue.give_up("a", "no")
    with closing(reopened(queue, path)) as queue:
        queue.wish(wish("a"), 0.0)
        assert queue.next(0.0) is None
        assert queue.renew_given_up() == 1
        job = queue.next(0.0)
        assert job is not None
        assert (job.num_attempts, job.strategy) == (0, "standard")


def test_a_kernel_that_is_there_is_not_compiled_again(queue: Queue, path: Path) -> None:
    """One that was compiled but not delivered is told at the next start."""
    queue.wish(wish("a"), 0.0)
    queue.begin("a")
    queue.compiled("a", "f" * 64)
    with closing(reopened(queue, path)) as queue:
        queue.wish(wish("a"), 0.0)
        assert queue.next(0.0) is None
        assert [job.artifact_id for job in queue.jobs(Stage.COMPILED)] == ["f" * 64]


def test_a_removed_kernel_is_made_again_later_each_time(queue: Queue) -> None:
    """What is wanted after it was delivered was removed; each round waits twice as long."""
    waits = []
    now_s = 1000.0
    for _ in range(3):
        queue.wish(wish("a"), now_s)
        queue.begin("a")
        queue.compiled("a", "f" * 64)
        queue.uploaded("a")
        queue.wish(wish("a"), now_s)
        waits.append((queue.next_time_s() or 0.0) - now_s)
        assert queue.next(now_s) is None
    assert waits == [60.0, 120.0, 240.0]


def test_what_nobody_wants_is_forgotten(queue: Queue) -> None:
    """Unless it was begun already."""
    for key in ("a", "b", "c"):
        queue.wish(wish(key), 0.0)
    queue.begin("a")
    assert queue.keep_only({"c"}) == ["b"]
    assert [job.variant_key for job in queue.jobs()] == ["a", "c"]


CHANGES: list[Callable[[Queue], object]] = [
    lambda queue: queue.begin("a"),
    lambda queue: queue.compiled("a", "f" * 64),
    lambda queue: queue.uploaded("a"),
    lambda queue: queue.give_up("a", "no"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_there_for_others_at_once(queue: Queue, path: Path, change: Callable[[Queue], object]) -> None:
    """No change waits for a commit that a kill would take away."""
    queue.wish(wish("a"), 0.0)
    change(queue)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT stage FROM jobs").fetchall() == [(stage(queue, "a"),)]
