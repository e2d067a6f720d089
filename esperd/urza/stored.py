"""One kernel as the library knows it, and what becomes of it: plain values.

Any thread; knows neither files nor tables.
"""

import enum
from dataclasses import dataclass

from esperd.leyline.kernels import KernelDocuments, KernelManifest, KernelReport
from esperd.leyline.vocabulary import KernelFileRole, KernelState


class Cause(enum.StrEnum):
    """Why a kernel changed."""

    UPLOAD = "upload"
    """It was begun, or all of it has come."""
    FOUND = "found"
    """It lay in the store, or what lies there of it is now judged in another way."""
    VALIDATED = "validated"
    """The validator's report came."""
    FAULT = "fault"
    """Somebody found a fault in it: it is quarantined."""
    PIN = "pin"
    DELETED = "deleted"
    QUOTA = "quota"
    AGE = "age"
    CORRUPT = "corrupt"
    """Its bytes are not what its manifest says."""
    MISSING = "missing"
    """Its files are no longer in the store."""
    ABANDONED = "abandoned"
    """Nobody went on with its upload."""


@dataclass(frozen=True, slots=True)
class PartProgress:
    """How much of one library has come, durably."""

    role: KernelFileRole
    num_received: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class StoredKernel:
    """One kernel: UPLOADING, VALIDATING, OFFERED, QUARANTINED or REMOVED."""

    manifest: KernelManifest
    documents: KernelDocuments
    """The report's part is empty unless a validator that is trusted here has signed it."""
    state: KernelState
    create_unix_s: float
    """When it came here."""
    update_unix_s: float
    """When its state changed, or the last part of its upload came."""
    last_use_unix_s: float
    """When a seed was last given it; at first when it came."""
    detail: str = ""
    """Why it is where it is."""
    principal: str = ""
    """Who uploaded it."""
    pinned: bool = False
    report: KernelReport | None = None
    received: tuple[tuple[KernelFileRole, int], ...] = ()
    """While it is UPLOADING: durable bytes of each library that has any."""

    @property
    def artifact_id(self) -> str:
        """Its name: SHA-256 (hex) of the manifest's bytes."""
        return self.manifest.artifact_id

    @property
    def is_stored(self) -> bool:
        """Whether all of its files are in the store."""
        return self.state in (KernelState.VALIDATING, KernelState.OFFERED, KernelState.QUARANTINED)

    @property
    def num_bytes(self) -> int:
        """What it takes of the quota: the size of its files, also while they are coming."""
        return 0 if self.state is KernelState.REMOVED else self.manifest.num_bytes

    @property
    def progress(self) -> tuple[PartProgress, ...]:
        """How much of each library is there, in the order of their roles."""
        received = dict(self.received)
        return tuple(
            PartProgress(role, file.num_bytes if self.is_stored else received.get(role, 0), file.num_bytes)
            for role, file in sorted(self.manifest.files.items())
        )

    @property
    def is_complete(self) -> bool:
        """Whether every byte of every library has come."""
        return all(part.num_received == part.num_bytes for part in self.progress)


@dataclass(frozen=True, slots=True)
class KernelChange:
    """A kernel as it is since a change."""

    kernel: StoredKernel
    previous: KernelState
    """UNSPECIFIED when it was not known before."""
    cause: Cause


@dataclass(frozen=True, slots=True)
class CompilationReport:
    """What a compiler last said about a wish."""

    variant_key: str
    state: KernelState
    """COMPILING or COMPILE_FAILED."""
    attempt: int
    detail: str
    principal: str
    update_unix_s: float


@dataclass(frozen=True, slots=True)
class LibraryLimits:
    """What the library may hold; `[kernels]` of the settings."""

    quota_bytes: int
    keep_s: float
    """Kernels that nobody has used for so long are removed; 0 keeps them."""
    max_kernel_bytes: int
