"""Decides what the compiler does: which wishes it takes, what follows a failure, and what the daemon is told.

The loop thread of `esper tezzeret serve`; no network and no compiler. Kernels as the daemon tells them go in, changes
of the queue and reports come out. Time is passed in.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from esper.leyline.v1 import kernel_pb2
from esper.tezzeret.breaker import Breaker
from esper.tezzeret.queue import Job, Queue, Stage, Wish
from esper.tezzeret.worker import Compiled, Failure

CONSERVATIVE = "conservative"
FIRST_PAUSE_S = 60.0
"""Between the second attempt and the third; doubled for each one after it."""

_WANTED = kernel_pb2.KERNEL_STATE_WANTED
_COMPILING = kernel_pb2.KERNEL_STATE_COMPILING
_FAILED = kernel_pb2.KERNEL_STATE_COMPILE_FAILED
_MADE = (kernel_pb2.KERNEL_STATE_UPLOADING, kernel_pb2.KERNEL_STATE_VALIDATING, kernel_pb2.KERNEL_STATE_OFFERED)

_log = structlog.get_logger("esper.tezzeret")


@dataclass(frozen=True, slots=True)
class Machine:
    """For which processes this compiler's kernels are: its own kind."""

    device_type: str
    capability: str
    machine: str
    torch_version: str

    def makes(self, variant: kernel_pb2.KernelVariant) -> bool:
        """Whether a kernel that is made here fits."""
        return self == Machine(variant.device_type, variant.capability, variant.machine, variant.torch_version)


@dataclass(frozen=True, slots=True)
class Report:
    """What the daemon is to be told about a wish."""

    variant_key: str
    state: kernel_pb2.KernelState
    attempt: int
    detail: str


@dataclass(frozen=True, slots=True)
class Happening:
    """One line for somebody who reads along."""

    what: str
    """`compiling`, `compiled`, `failed`, `gave up`, `uploaded`, `dropped`, `offered` or `quarantined`."""
    job: Job
    detail: str = ""


Tell = Callable[[Happening], None]


class Agent:
    """The compiler's mind: a queue, a breaker, and the reports that are still to be delivered."""

    def __init__(
        self,
        queue: Queue,
        breaker: Breaker,
        machines: Collection[Machine],
        *,
        max_attempts: int,
        tell: Tell,
        wall_clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._breaker = breaker
        self._machines = machines
        self._max_attempts = max_attempts
        self._tell = tell
        self._wall_clock = wall_clock
        self._wanted: set[str] = set()
        """Keys that the current watch has told as wanted."""
        self._unjudged = {job.artifact_id for job in queue.jobs(Stage.COMPILED)}
        """Kernels of this process whose judgement was not told yet."""
        self._unfit: set[str] = set()
        self.reports: dict[str, Report] = {}
        """By key: what the daemon does not know yet, only the newest of each wish."""

    def begin_watch(self) -> None:
        """A watch begins: it tells everything that is wanted anew."""
        self._wanted.clear()

    def take(self, kernels: Iterable[kernel_pb2.Kernel]) -> None:
        """The daemon has told how wishes and kernels are; a wish has no artifact id."""
        for kernel in kernels:
            if not kernel.artifact_id:
                self._take_wish(kernel)
            elif kernel.state in _MADE:
                self._take_made(kernel)
            elif kernel.state == kernel_pb2.KERNEL_STATE_QUARANTINED:
                self._take_quarantined(kernel)

    def watch_is_complete(self) -> None:
        """Everything was told: what was not is wanted no more."""
        for key in self._queue.keep_only(self._wanted):
            _log.info("no longer wanted", variant_key=key)

    def next_job(self) -> Job | None:
        """What to compile now, if anything; it counts as begun."""
        if self._breaker.wait_s() > 0:
            return None
        waiting = self._queue.next(self._wall_clock())
        if waiting is None:
            return None
        self._breaker.began()
        self._queue.begin(waiting.variant_key)
        job = self._job(waiting.variant_key)
        self._report(job, _COMPILING)
        self._tell(Happening("compiling", job))
        return job

    def wait_s(self) -> float:
        """Seconds until `next_job` may have something again, infinity when only news can change that."""
        first_s = self._queue.next_time_s()
        if first_s is None:
            return float("inf")
        return max(self._breaker.wait_s(), first_s - self._wall_clock(), 0.0)

    def ended(self, variant_key: str, outcome: Compiled | Failure) -> None:
        """An attempt has ended."""
        job = self._job(variant_key)
        if isinstance(outcome, Compiled):
            self._breaker.succeeded()
            self._queue.compiled(variant_key, outcome.artifact_id)
            self._unjudged.add(outcome.artifact_id)
            self._tell(Happening("compiled", self._job(variant_key)))
            return
        if outcome.is_final:
            self._breaker.interrupted()
        elif self._breaker.failed():
            _log.warning("nothing can be compiled; waiting", wait_s=round(self._breaker.wait_s()), why=outcome.detail)
        self._try_again(job, outcome.detail, is_final=outcome.is_final)

    def interrupted(self, variant_key: str) -> None:
        """An attempt was stopped from outside."""
        self._breaker.interrupted()
        self._queue.interrupted(variant_key)

    def undelivered(self) -> list[Job]:
        """Kernels that the daemon does not have yet."""
        return self._queue.jobs(Stage.COMPILED)

    def uploaded(self, variant_key: str) -> None:
        """The daemon has the kernel."""
        job = self._delivering(variant_key)
        if job is not None:
            self.reports.pop(variant_key, None)
            self._queue.uploaded(variant_key)
            self._tell(Happening("uploaded", job))

    def unusable(self, variant_key: str, detail: str) -> None:
        """The daemon finds that the kernel is none, or its files are gone."""
        job = self._delivering(variant_key)
        if job is not None:
            self._try_again(job, detail, is_final=False)

    def refused(self, variant_key: str, detail: str) -> None:
        """The daemon does not take the kernel, and would not take another one."""
        job = self._delivering(variant_key)
        if job is not None:
            self._give_up(job, detail)

    def needs_files(self, variant_key: str) -> bool:
        """Whether the files of a job are still used: it is being compiled, or to be delivered."""
        job = self._queue.job(variant_key)
        return job is not None and job.stage in (Stage.COMPILING, Stage.COMPILED)

    def not_wanted(self, variant_key: str) -> None:
        """The daemon has no such wish any more."""
        self.reports.pop(variant_key, None)
        job = self._queue.job(variant_key)
        if job is not None and job.stage is not Stage.COMPILING:
            self._tell(Happening("dropped", job, "nobody wants it any more"))
            self._queue.forget(variant_key)

    def _take_wish(self, kernel: kernel_pb2.Kernel) -> None:
        key = kernel.variant_key
        if kernel.state not in (_WANTED, _COMPILING, _FAILED):
            self._wanted.discard(key)
            return
        if not any(machine.makes(kernel.variant) for machine in self._machines):
            self._note_unfit(kernel)
            return
        self._wanted.add(key)
        job = self._queue.job(key)
        is_begun = job is not None and (job.stage is not Stage.WAITING or job.num_attempts or job.num_interruptions)
        if kernel.state == _COMPILING and not is_begun:
            # Another compiler works on it; the daemon tells it as wanted when that falls silent.
            self._queue.forget(key)
        elif kernel.state == _WANTED or job is None or job.stage is not Stage.UPLOADED:
            self._wish(kernel)

    def _wish(self, kernel: kernel_pb2.Kernel) -> None:
        """Queue a wish; what the daemon forgot in a restart it is told again."""
        wish = Wish(
            kernel.variant_key,
            kernel.variant.SerializeToString(deterministic=True),
            kernel.variant.blueprint_id,
            kernel.hint_batch,
            kernel.num_waiting_seeds,
        )
        job = self._queue.wish(wish, self._wall_clock())
        if job.stage is Stage.GIVEN_UP and kernel.state != _FAILED:
            self._report(job, _FAILED, job.detail)
        elif job.stage is Stage.COMPILING and kernel.state == _WANTED:
            self._report(job, _COMPILING)

    def _take_made(self, kernel: kernel_pb2.Kernel) -> None:
        job = self._queue.job(kernel.variant_key)
        if job is None:
            return
        if kernel.artifact_id == job.artifact_id and kernel.state != kernel_pb2.KERNEL_STATE_UPLOADING:
            self.uploaded(kernel.variant_key)  # it may be told before the upload is answered
        if kernel.state == kernel_pb2.KERNEL_STATE_OFFERED and kernel.artifact_id in self._unjudged:
            self._unjudged.discard(kernel.artifact_id)
            self._tell(Happening("offered", job))
        if job.stage is Stage.WAITING:
            self._queue.forget(kernel.variant_key)  # another compiler was faster

    def _take_quarantined(self, kernel: kernel_pb2.Kernel) -> None:
        """A kernel of ours that computes wrongly is made again with care; one that is only slow would be slower."""
        job = self._queue.job(kernel.variant_key)
        delivered = (Stage.COMPILED, Stage.UPLOADED)
        if job is None or job.stage not in delivered or job.artifact_id != kernel.artifact_id:
            return
        self._unjudged.discard(kernel.artifact_id)
        failed = next((check for check in kernel.report.checks if not check.passed), None)
        why = f"{failed.name}: {failed.detail}" if failed is not None else kernel.detail
        self._tell(Happening("quarantined", job, why))
        detail = f"quarantined: {why}"
        is_useless = kernel.report.hazard_band == kernel_pb2.HAZARD_BAND_HIGH
        self._try_again(job, detail, is_final=is_useless or job.strategy == CONSERVATIVE)

    def _try_again(self, job: Job, detail: str, *, is_final: bool) -> None:
        if is_final or job.num_attempts >= self._max_attempts * (2 if self._breaker.is_open else 1):
            self._give_up(job, detail)
            return
        pause_s = FIRST_PAUSE_S * 2.0 ** (job.num_attempts - 2) if job.strategy == CONSERVATIVE else 0.0
        self._queue.again(job.variant_key, detail, strategy=CONSERVATIVE, not_before_s=self._wall_clock() + pause_s)
        self._tell(Happening("failed", job, detail))

    def _give_up(self, job: Job, detail: str) -> None:
        self._queue.give_up(job.variant_key, detail)
        self._report(job, _FAILED, detail)
        self._tell(Happening("gave up", job, detail))

    def _report(self, job: Job, state: Any, detail: str = "") -> None:
        said = detail or (f"the attempt before failed: {job.detail}" if job.detail else "")
        self.reports[job.variant_key] = Report(job.variant_key, state, max(1, job.num_attempts), said)

    def _note_unfit(self, kernel: kernel_pb2.Kernel) -> None:
        variant = kernel.variant
        what = f"{variant.device_type} {variant.capability} {variant.machine} torch {variant.torch_version}"
        if what not in self._unfit:
            self._unfit.add(what)
            _log.warning("kernels are wanted that cannot be made here", wanted=what, made=list(self._machines))

    def _delivering(self, variant_key: str) -> Job | None:
        """The job, unless the daemon has judged its kernel before it answered the upload."""
        job = self._queue.job(variant_key)
        return job if job is not None and job.stage is Stage.COMPILED else None

    def _job(self, variant_key: str) -> Job:
        job = self._queue.job(variant_key)
        if job is None:
            raise KeyError(variant_key)
        return job
