"""Which wishes are taken, what follows a failure, and what the daemon is told."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from esper.leyline.v1 import kernel_pb2 as pb
from esper.tezzeret.agent import CONSERVATIVE, Agent, Happening, Machine
from esper.tezzeret.breaker import FAILURES_TO_OPEN, FIRST_PAUSE_S, Breaker
from esper.tezzeret.queue import Queue, Stage
from esper.tezzeret.worker import Compiled, Failure

HERE = Machine("cpu", "AVX2", "x86_64", "2.13.0+cpu")
MADE = "f" * 64


class Bench:
    """An agent with its queue, and a clock that is set by hand."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 1000.0
        self.queue = Queue(directory / "queue.sqlite3")
        self.breaker = Breaker(self.clock)
        self.told: list[Happening] = []
        self.agent = Agent(
            self.queue, self.breaker, [HERE], max_attempts=3, tell=self.told.append, wall_clock=self.clock
        )

    def clock(self) -> float:
        return self.now_s

    def close(self) -> None:
        self.queue.close()

    def watch(self, *kernels: pb.Kernel) -> None:
        """One message of a watch."""
        self.agent.take(kernels)
        self.agent.watch_is_complete()

    def fail(self, detail: str = "no", *, is_final: bool = False) -> None:
        """Begin what is next and have it fail."""
        self.agent.ended(self.begin(), Failure(detail, is_final))

    def begin(self) -> str:
        self.now_s += max(0.0, self.agent.wait_s())
        job = self.agent.next_job()
        assert job is not None
        return job.variant_key

    def deliver(self, key: str) -> None:
        """Compile and upload."""
        assert self.begin() == key
        self.agent.ended(key, Compiled(MADE, Path("kernel")))
        self.agent.uploaded(key)

    def stage(self, key: str) -> Stage | None:
        job = self.queue.job(key)
        return None if job is None else job.stage

    def reported(self) -> dict[str, tuple[int, int, str]]:
        return {key: (one.state, one.attempt, one.detail) for key, one in self.agent.reports.items()}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(tmp_path)) as stage:
        yield stage


def variant(**changes: str) -> pb.KernelVariant:
    facts: dict[str, Any] = {
        "blueprint_id": "residual_mlp", "tail_shape": [16], "dtype": "float32", "device_type": "cpu",
        "capability": "AVX2", "machine": "x86_64", "torch_version": "2.13.0+cpu",
    }  # fmt: skip
    return pb.KernelVariant(**{**facts, **changes})


def wish(key: str, state: Any = pb.KERNEL_STATE_WANTED, num_waiting_seeds: int = 0, **changes: str) -> pb.Kernel:
    return pb.Kernel(
        variant_key=key, state=state, variant=variant(**changes), hint_batch=8, num_waiting_seeds=num_waiting_seeds
    )


def made(key: str, state: Any, band: Any = pb.HAZARD_BAND_LOW) -> pb.Kernel:
    kernel = pb.Kernel(artifact_id=MADE, variant_key=key, state=state, variant=variant(), hint_batch=8)
    if state == pb.KERNEL_STATE_QUARANTINED:
        check = pb.KernelCheck(name="forward", passed=False, detail="it computes something else")
        kernel.report.CopyFrom(pb.KernelReport(hazard_band=band, checks=[check]))
    return kernel


def test_a_wish_is_compiled_and_told(here: Bench) -> None:
    """What seeds wait for begins first, and the daemon hears that it is worked on."""
    here.watch(wish("a"), wish("b", num_waiting_seeds=1))
    assert here.begin() == "b"
    assert here.reported() == {"b": (pb.KERNEL_STATE_COMPILING, 1, "")}
    here.agent.ended("b", Compiled(MADE, Path("kernel")))
    assert [job.variant_key for job in here.agent.undelivered()] == ["b"]
    here.agent.uploaded("b")
    assert here.agent.undelivered() == []
    here.watch(made("b", pb.KERNEL_STATE_VALIDATING))
    here.watch(made("b", pb.KERNEL_STATE_OFFERED))
    here.watch(made("b", pb.KERNEL_STATE_OFFERED))
    assert [one.what for one in here.told] == ["compiling", "compiled", "uploaded", "offered"]


@pytest.mark.parametrize(
    "change",
    [{"device_type": "cuda"}, {"capability": "AVX512"}, {"machine": "aarch64"}, {"torch_version": "2.11.0+cpu"}],
    ids=str,
)
def test_what_does_not_fit_is_left_alone(here: Bench, change: dict[str, str]) -> None:
    """A kernel that is made here fits processes like this one only."""
    here.watch(wish("a", **change))
    assert here.agent.next_job() is None


def test_a_failed_attempt_is_followed_by_careful_ones(here: Bench) -> None:
    """The second one comes at once, the third after a while, then the wish is given up and the daemon hears why."""
    here.watch(wish("a"))
    here.fail("first")
    job = here.queue.job("a")
    assert job is not None
    assert (job.strategy, job.not_before_s) == (CONSERVATIVE, here.now_s)
    here.fail("second")
    assert here.agent.next_job() is None
    assert here.agent.wait_s() == FIRST_PAUSE_S
    here.fail("third")
    assert here.stage("a") is Stage.GIVEN_UP
    assert here.reported() == {"a": (pb.KERNEL_STATE_COMPILE_FAILED, 3, "third")}


def test_an_attempt_tells_how_the_one_before_failed(here: Bench) -> None:
    """Whoever looks at the daemon sees that it is not the first one, and why."""
    here.watch(wish("a"))
    here.fail("no room")
    here.begin()
    assert here.reported() == {"a": (pb.KERNEL_STATE_COMPILING, 2, "the attempt before failed: no room")}


def test_a_final_failure_is_not_tried_again(here: Bench) -> None:
    """Nor does it say anything about the machine."""
    for number in range(FAILURES_TO_OPEN + 1):
        here.watch(*(wish(str(n)) for n in range(number + 1)))
        here.fail(is_final=True)
        assert here.stage(str(number)) is Stage.GIVEN_UP
    assert not here.breaker.is_open


def test_a_wish_that_was_given_up_is_told_to_a_daemon_that_forgot(here: Bench) -> None:
    """And only to such a one."""
    here.watch(wish("a"))
    here.fail("no", is_final=True)
    here.agent.reports.clear()
    here.watch(wish("a", pb.KERNEL_STATE_COMPILE_FAILED))
    assert here.reported() == {}
    here.watch(wish("a"))
    assert here.reported() == {"a": (pb.KERNEL_STATE_COMPILE_FAILED, 1, "no")}


def test_failures_in_a_row_hold_everything_back(here: Bench) -> None:
    """A machine on which nothing compiles does not give up one wish after the other."""
    here.watch(*(wish(str(number)) for number in range(9)))
    for _ in range(FAILURES_TO_OPEN):
        here.fail()
    assert here.breaker.is_open
    assert here.agent.next_job() is None
    here.deliver(here.queue.next(here.now_s + 1e6).variant_key)  # type: ignore[union-attr]
    assert not here.breaker.is_open


def test_what_another_compiler_works_on_is_left_to_it(here: Bench) -> None:
    """Until the daemon tells it as wanted again."""
    here.watch(wish("a"))
    here.watch(wish("a", pb.KERNEL_STATE_COMPILING))
    assert here.agent.next_job() is None
    here.watch(wish("a"))
    assert here.begin() == "a"


def test_what_another_compiler_has_made_is_not_made_again(here: Bench) -> None:
    """Its upload settles the wish."""
    here.watch(wish("a"))
    here.watch(made("a", pb.KERNEL_STATE_VALIDATING))
    assert here.agent.next_job() is None


def test_own_work_goes_on_after_a_restart(tmp_path: Path) -> None:
    """That the daemon tells it as being compiled does not make it another compiler's."""
    with closing(Bench(tmp_path)) as here:
        here.watch(wish("a"))
        here.begin()
    with closing(Bench(tmp_path)) as here:
        here.watch(wish("a", pb.KERNEL_STATE_COMPILING))
        assert here.begin() == "a"


def test_a_daemon_that_forgot_hears_again_what_is_compiled(here: Bench) -> None:
    """It waits for no compiler for ever, and asks by telling the wish as wanted."""
    here.watch(wish("a"))
    here.begin()
    here.agent.reports.clear()
    here.watch(wish("a"))
    assert here.reported() == {"a": (pb.KERNEL_STATE_COMPILING, 1, "")}


def test_what_nobody_wants_any_more_is_dropped(here: Bench) -> None:
    """Whether the daemon says so, or no longer tells it at the next watch."""
    here.watch(wish("a"), wish("b"), wish("c"))
    here.watch(wish("a", pb.KERNEL_STATE_REMOVED))
    here.agent.begin_watch()
    here.watch(wish("c"))
    assert [job.variant_key for job in here.queue.jobs()] == ["c"]


def test_a_kernel_that_computes_wrongly_is_made_again_with_care(here: Bench) -> None:
    """Once; when that one is quarantined too, the wish is given up."""
    here.watch(wish("a"))
    here.deliver("a")
    refused = made("a", pb.KERNEL_STATE_QUARANTINED, pb.HAZARD_BAND_CRITICAL)
    here.watch(wish("a", pb.KERNEL_STATE_COMPILE_FAILED), refused)
    job = here.queue.job("a")
    assert job is not None
    assert (job.stage, job.strategy) == (Stage.WAITING, CONSERVATIVE)
    assert job.detail == "quarantined: forward: it computes something else"
    here.deliver("a")
    here.watch(refused)
    assert here.stage("a") is Stage.GIVEN_UP


def test_a_kernel_that_is_only_slow_is_not_made_again(here: Bench) -> None:
    """A careful one would be slower."""
    here.watch(wish("a"))
    here.deliver("a")
    here.watch(made("a", pb.KERNEL_STATE_QUARANTINED, pb.HAZARD_BAND_HIGH))
    assert here.stage("a") is Stage.GIVEN_UP


def test_a_removed_kernel_is_made_again(here: Bench) -> None:
    """After a while, if it is still wanted."""
    here.watch(wish("a"))
    here.deliver("a")
    here.watch(wish("a"))
    assert here.agent.next_job() is None
    assert here.begin() == "a"


def test_a_kernel_that_the_daemon_finds_corrupt_is_made_again(here: Bench) -> None:
    """The attempt counts."""
    here.watch(wish("a"))
    assert here.begin() == "a"
    here.agent.ended("a", Compiled(MADE, Path("kernel")))
    here.agent.unusable("a", "digest")
    assert here.stage("a") is Stage.WAITING
    assert here.agent.undelivered() == []


def test_a_judgement_may_come_before_the_answer_to_the_upload(here: Bench) -> None:
    """A kernel that was quarantined meanwhile stays one that is made again."""
    here.watch(wish("a"))
    here.begin()
    here.agent.ended("a", Compiled(MADE, Path("kernel")))
    assert here.agent.needs_files("a")
    here.watch(made("a", pb.KERNEL_STATE_QUARANTINED, pb.HAZARD_BAND_CRITICAL))
    here.agent.uploaded("a")
    assert here.stage("a") is Stage.WAITING
    assert not here.agent.needs_files("a")
    assert [one.what for one in here.told] == ["compiling", "compiled", "quarantined", "failed"]
