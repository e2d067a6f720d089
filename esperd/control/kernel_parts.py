"""How the parts that deal with kernels hang together: board, library, validation, swaps and desk of one daemon.

Event loop only.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from esperd.bridge.bridge import TrainerPort
from esperd.config.settings import KernelSettings
from esperd.control.kernel_board import KernelBoard
from esperd.control.kernel_desk import KernelDesk, Tell
from esperd.control.kernel_swaps import KernelSwaps, Submit
from esperd.control.kernel_validation import Validates, ValidationQueue
from esperd.control.library_thread import LibraryThread
from esperd.urza.library import Library
from esperd.urza.trust import KernelTrust
from esperd.urza.validator_key import ValidatorKey


@dataclass(frozen=True, slots=True)
class KernelKeeping:
    """What a daemon that uses kernels keeps them with."""

    library: Library
    trust: KernelTrust
    """Whose word counts; the training side asks it again before it opens a kernel."""
    validator: Validates
    key: ValidatorKey
    """Under which reports are signed."""
    directory: Path
    """The run's own for kernels."""

    @property
    def local(self) -> Path:
        """The private copies from which the training side opens kernels, each under its artifact id."""
        return self.directory / "local"

    @property
    def scratch(self) -> Path:
        """Where copies for the validator lie; emptied at each start."""
        return self.directory / "scratch"


class KernelParts:
    """Everything about kernels; without a `KernelKeeping` they are switched off, and clients are told so."""

    def __init__(
        self,
        *,
        keeping: KernelKeeping | None,
        port: TrainerPort,
        settings: KernelSettings,
        epoch: bytes,
        submit: Submit,
        tell: Tell,
        set_good: Callable[[bool], None],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`set_good` hears whether the library can be used."""
        self.board = KernelBoard(epoch, clock)
        library = LibraryThread(
            None if keeping is None else keeping.library,
            on_change=lambda change: self.desk.changed(change),
            set_good=set_good,
        )
        self.swaps = KernelSwaps(
            port=port,
            board=self.board,
            library=library,
            submit=submit,
            local=Path() if keeping is None else keeping.local,
            monotonic=monotonic,
            log=log,
        )
        self.desk = KernelDesk(
            port=port,
            board=self.board,
            library=library,
            validation=None if keeping is None else self._make_validation(keeping, library, log),
            swaps=self.swaps,
            folders=() if keeping is None else (keeping.local, keeping.scratch),
            settings=settings,
            tell=tell,
            clock=clock,
            log=log,
        )

    def _make_validation(
        self, keeping: KernelKeeping, library: LibraryThread, log: structlog.stdlib.BoundLogger
    ) -> ValidationQueue:
        return ValidationQueue(
            library=library,
            validator=keeping.validator,
            key=keeping.key,
            scratch=keeping.scratch,
            settings=lambda: self.desk.settings,
            sleep=asyncio.sleep,
            log=log,
        )
