"""What the library knows, in memory and in its catalogue.

Reading is for any thread, the event loop's too: it sees immutable values that are replaced whole. Writing is for one
worker thread, and is durable on return. Knows neither files of kernels nor rules.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import KernelFileRole, KernelState
from esperd.urza.catalogue import Catalogue
from esperd.urza.stored import Cause, CompilationReport, KernelChange, StoredKernel

MIN_PREFIX_CHARS = 6


class Contents:
    """Kernels by their artifact ids, and what compilers said about wishes."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._changes: deque[KernelChange] = deque()
        self._kernels: Mapping[str, StoredKernel] = catalogue.kernels()
        self._compilations: Mapping[str, CompilationReport] = catalogue.compilations()

    @property
    def kernels(self) -> Mapping[str, StoredKernel]:
        """Every kernel by its artifact id, those that are REMOVED too."""
        return self._kernels

    @property
    def compilations(self) -> Mapping[str, CompilationReport]:
        """What compilers last said, by the key of the wish."""
        return self._compilations

    @property
    def stored_bytes(self) -> int:
        """Bytes of all kernels; those that are coming in count with the size that they will have."""
        return sum(kernel.num_bytes for kernel in self._kernels.values())

    def find(self, name: str) -> StoredKernel:
        """The kernel of this artifact id, or the only one whose id begins so. Raises EsperdError KERNEL_UNKNOWN."""
        kernels = self._kernels
        if name in kernels:
            return kernels[name]
        matches = [k for k in kernels.values() if len(name) >= MIN_PREFIX_CHARS and k.artifact_id.startswith(name)]
        if len(matches) != 1:
            raise EsperdError("KERNEL_UNKNOWN", artifact_id=name)
        return matches[0]

    def query(self, *states: KernelState) -> list[StoredKernel]:
        """The kernels in these states, without any all but the REMOVED ones; the newest first."""
        found = [
            kernel
            for kernel in self._kernels.values()
            if (kernel.state in states if states else kernel.state is not KernelState.REMOVED)
        ]
        return sorted(found, key=lambda kernel: (-kernel.create_unix_s, kernel.artifact_id))

    def take_changes(self) -> tuple[KernelChange, ...]:
        """What has changed since the last call, in order; call it after every call that works on files."""
        taken = []
        while self._changes:
            taken.append(self._changes.popleft())
        return tuple(taken)

    def put(self, kernel: StoredKernel, cause: Cause) -> StoredKernel:
        """Keep a kernel as it is now, and tell of it."""
        known = self._kernels.get(kernel.artifact_id)
        self.keep(kernel)
        self._changes.append(KernelChange(kernel, KernelState.UNSPECIFIED if known is None else known.state, cause))
        return kernel

    def keep(self, kernel: StoredKernel) -> StoredKernel:
        """Keep what is of no interest to others: when a kernel was last used."""
        self._catalogue.put(kernel)
        return self._remember(kernel)

    def receive(self, kernel: StoredKernel, role: KernelFileRole, num_received: int, now_unix_s: float) -> StoredKernel:
        """Know how much of a library has come; as often as chunks come, so nobody is told."""
        self._catalogue.put_received(kernel.artifact_id, role, num_received, now_unix_s)
        received = tuple(sorted({**dict(kernel.received), role: num_received}.items()))
        return self._remember(replace(kernel, received=received, update_unix_s=now_unix_s))

    def note_use(self, kernel: StoredKernel, now_unix_s: float) -> StoredKernel:
        """Know that a kernel was used just now; nothing waits for the disk: it is written with its next change."""
        return self._remember(replace(kernel, last_use_unix_s=now_unix_s))

    def forget(self, artifact_id: str) -> None:
        """Know a kernel no longer."""
        self._catalogue.forget(artifact_id)
        self._kernels = {name: kernel for name, kernel in self._kernels.items() if name != artifact_id}

    def report_compilation(self, report: CompilationReport) -> None:
        """Keep what a compiler says about a wish."""
        self._catalogue.put_compilation(report)
        self._compilations = {**self._compilations, report.variant_key: report}

    def forget_compilation(self, variant_key: str) -> None:
        """Forget what a compiler said about a wish: it is answered, or nobody has it any more."""
        self._catalogue.forget_compilation(variant_key)
        self._compilations = {key: report for key, report in self._compilations.items() if key != variant_key}

    def close(self) -> None:
        """Close the catalogue; what is in memory stays readable."""
        self._catalogue.close()

    def _remember(self, kernel: StoredKernel) -> StoredKernel:
        self._kernels = {**self._kernels, kernel.artifact_id: kernel}
        return kernel
