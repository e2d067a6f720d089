"""Brings offered kernels to the seeds that could use them: a private copy, an order to open it, then a command.

Event loop only. Training waits for nothing here: a seed runs its eager module until the command takes effect at a safe
point. The commands are the daemon's own, in the journal like all others, so that what is done again after a crash
changes over at the same steps.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from esperd.bridge.bridge import TrainerPort
from esperd.control.command_messages import DAEMON
from esperd.control.kernel_board import KernelBoard, may_be_given
from esperd.control.kernel_rows import KernelRow
from esperd.control.kernel_wishes import Wish
from esperd.control.library_thread import LibraryThread
from esperd.leyline.commands import KernelSwapCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelLoaded, KernelOrder, misfits
from esperd.leyline.vocabulary import BreakerState, CommandState, KernelState, TrainerPhase
from esperd.oona.records import CommandRecord

BREAKER = "kernel"
MAX_TRIES = 5
"""Swaps of one seed to one kernel in one start of the daemon: one that never lasts is not tried for ever."""
_SWAPS = (TrainerPhase.TRAINING, TrainerPhase.VALIDATING, TrainerPhase.PAUSED)

Submit = Callable[[KernelSwapCommand, str, int], Awaitable[None]]
"""Submits a command of the daemon's own, with its reason and its seed."""


@dataclass(slots=True)
class _Swap:
    """One seed's change to a kernel that is under way."""

    artifact_id: str
    done_at_revision: int = 0
    """Of the first snapshot that shows it; 0 while it has no outcome."""
    is_refused: bool = False


class KernelSwaps:
    """What is being fetched, and which seeds are being changed over."""

    def __init__(
        self,
        *,
        port: TrainerPort,
        board: KernelBoard,
        library: LibraryThread,
        submit: Submit,
        local: Path,
        monotonic: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`local` is the run's private folder of kernels, each under its artifact id."""
        self._port = port
        self._board = board
        self._library = library
        self._submit = submit
        self._local = local
        self._monotonic = monotonic
        self._log = log
        self._copies: set[str] = set()
        """Kernels whose private copies are made, or just being made."""
        self._copied: set[str] = set()
        self._fetching: set[str] = set()
        """Kernels that the training side is asked to open, or will be once they are copied."""
        self._unusable: set[str] = set()
        self._swaps: dict[int, _Swap] = {}
        self._tries: Counter[tuple[int, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    # What happens

    def look(self) -> None:
        """Change over every seed that waits for a kernel which is there, and fetch those that are not."""
        snapshot = self._port.snapshot()
        self._forget_done(snapshot.revision)
        if self._is_closed or snapshot.run.phase not in _SWAPS or self._is_breaker_open():
            return
        for wish in self._board.needs.wishes.values():
            row = self._board.best_for(wish)
            if row is None or row.artifact_id in self._unusable:
                continue
            self._copy_ahead(row.artifact_id)
            if row.artifact_id in self._copied:
                for seed_id in wish.waiting_seed_ids:
                    self._bring(seed_id, row.artifact_id)

    def loaded(self, event: KernelLoaded) -> None:
        """A kernel was opened, or could not be."""
        self._fetching.discard(event.artifact_id)
        if event.error_reason:
            self._unusable.add(event.artifact_id)

    def settled(self, record: CommandRecord) -> None:
        """A command has its outcome; one of these may have been refused."""
        is_own = record.method == DAEMON and record.kind == KernelSwapCommand.__name__
        seed_id, swap = record.seed_id, self._swaps.get(record.seed_id)
        if not is_own or swap is None:
            return
        if record.state is CommandState.APPLIED:
            swap.done_at_revision = max(1, record.revision)
        elif record.refusal_reason in ("KERNEL_NOT_RESIDENT", "KERNEL_BREAKER_OPEN"):
            del self._swaps[seed_id]
        else:
            swap.is_refused = True  # another kernel may suit it
            self._log.info("a seed took no kernel", seed_id=seed_id, reason=record.refusal_reason)

    def offered(self, artifact_id: str) -> None:
        """A kernel was judged anew: with its report the private copy is another one."""
        self._unusable.discard(artifact_id)
        self._copies.discard(artifact_id)
        self._copied.discard(artifact_id)

    def retry(self) -> None:
        """What could not be copied or opened may be so by now; how often that fails the breaker watches."""
        self._unusable.clear()

    def forget(self, artifact_id: str) -> None:
        """A kernel is not to be used any more."""
        self._unusable.add(artifact_id)
        self._copies.discard(artifact_id)
        self._copied.discard(artifact_id)

    @property
    def artifacts(self) -> frozenset[str]:
        """Kernels that are being fetched, or that seeds are being changed over to."""
        return frozenset(self._fetching) | {s.artifact_id for s in self._swaps.values() if not s.is_refused}

    def close(self) -> None:
        """Begin nothing more."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    # What a client asks for

    def check(self, command: KernelSwapCommand) -> None:
        """Whether a seed may be changed over as a client asks.

        Raises:
            EsperdError: KERNELS_DISABLED, KERNEL_UNKNOWN, KERNEL_NOT_OFFERED, KERNEL_MISFIT, KERNEL_BREAKER_OPEN;
                KERNEL_NOT_RESIDENT, and then it is being fetched.
        """
        if not command.artifact_id:
            return
        if not self._library.is_open:
            raise EsperdError("KERNELS_DISABLED")
        row = self._board.artifact(command.artifact_id)
        if row.state is not KernelState.OFFERED:
            raise EsperdError(
                "KERNEL_NOT_OFFERED", artifact_id=row.artifact_id, state=row.state.name, detail=row.detail
            )
        wrong = misfit(row, self._board.needs.of_seeds.get(command.seed_id))
        if wrong:
            raise EsperdError("KERNEL_MISFIT", artifact_id=row.artifact_id, detail=wrong)
        if self._is_breaker_open():
            raise EsperdError("KERNEL_BREAKER_OPEN", detail=f"the breaker {BREAKER} is open")
        if not self._board.is_resident(row.artifact_id):
            self._fetch(row.artifact_id)
            raise EsperdError("KERNEL_NOT_RESIDENT", artifact_id=row.artifact_id, detail="its seed runs eager so far")

    # One seed, one kernel

    def _bring(self, seed_id: int, artifact_id: str) -> None:
        swap = self._swaps.get(seed_id)
        if swap is not None and (swap.artifact_id == artifact_id or not swap.is_refused):
            return
        if self._tries[seed_id, artifact_id] >= MAX_TRIES:
            return
        if not self._board.is_resident(artifact_id):
            self._fetch(artifact_id)
            return
        self._tries[seed_id, artifact_id] += 1
        self._swaps[seed_id] = _Swap(artifact_id)
        self._begin(self._change_over(seed_id, artifact_id))

    async def _change_over(self, seed_id: int, artifact_id: str) -> None:
        try:
            await self._submit(KernelSwapCommand(seed_id, artifact_id), "a kernel is there for it", seed_id)
        except EsperdError as error:
            self._swaps.pop(seed_id, None)
            self._log.info("a seed was not given its kernel", seed_id=seed_id, error=error.message)

    def _copy_ahead(self, artifact_id: str) -> None:
        """Have the private copy of a kernel that the run could use, before any seed waits for it."""
        if artifact_id not in self._copies:
            self._copies.add(artifact_id)
            self._begin(self._copy(artifact_id))

    async def _copy(self, artifact_id: str) -> None:
        folder = self._local / artifact_id
        try:
            await self._library.do(lambda library: library.open_local_copy(artifact_id, folder))
        except EsperdError as error:
            self._copies.discard(artifact_id)
            self._fetching.discard(artifact_id)
            if error.reason != "DRAINING":
                self._unusable.add(artifact_id)
                self._log.warning("a kernel could not be fetched", artifact_id=artifact_id, error=error.message)
            return
        self._copied.add(artifact_id)
        self.look()

    def _fetch(self, artifact_id: str) -> None:
        if artifact_id not in self._fetching:
            self._fetching.add(artifact_id)
            self._begin(self._order(artifact_id))

    async def _order(self, artifact_id: str) -> None:
        began_s = self._monotonic()
        if artifact_id not in self._copied:
            self._copies.add(artifact_id)
            await self._copy(artifact_id)
        if artifact_id in self._copied:
            copy_ms = (self._monotonic() - began_s) * 1e3
            self._port.load_kernel(KernelOrder(artifact_id, str(self._local / artifact_id), copy_ms))

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget_done(self, revision: int) -> None:
        """Once a snapshot shows a change it need not be remembered: the next look sees the seed as it is."""
        done = [number for number, swap in self._swaps.items() if 0 < swap.done_at_revision <= revision]
        for seed_id in done:
            del self._swaps[seed_id]

    def _is_breaker_open(self) -> bool:
        views = self._port.snapshot().breakers
        return any(view.name == BREAKER and view.state is BreakerState.OPEN for view in views)


def misfit(row: KernelRow, wish: Wish | None) -> str:
    """Why a kernel is not for a seed, empty when it is."""
    if wish is None:
        return "the seed has no module that it could stand in for"
    wrong = [*misfits(row.variant, wish.variant)]
    if not row.min_batch <= wish.hint_batch <= row.max_batch:
        wrong.append(f"its batch sizes are {row.min_batch} to {row.max_batch}, the site's is {wish.hint_batch}")
    if not may_be_given(row, wish):
        wrong.append("it is restricted, and the seed's blueprint is trusted further than that")
    return "; ".join(wrong)
