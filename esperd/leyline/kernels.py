"""What a kernel is, as plain values: its variant, its manifest, its report, and when it fits.

Any thread; knows neither protobuf nor torch nor files. The bytes that these are read from: `kernel_documents.py`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from esperd.leyline.vocabulary import HandlingClass, HazardBand, KernelFileRole, KernelInputKind


@dataclass(frozen=True, slots=True)
class KernelVariant:
    """Everything that decides for which seeds a kernel is: it fits where all of this is equal."""

    blueprint_id: str
    blueprint_sha256: str
    """SHA-256 (hex) of the source that the blueprint is built by."""
    parameters: Mapping[str, float]
    """The blueprint's own parameters, all of them."""
    tail_shape: tuple[int, ...]
    """Shape of the activation without the batch size."""
    dtype: str
    """Of the activation, e.g. `float32`."""
    weight_dtype: str
    autocast_dtype: str
    """Empty without autocast."""
    device_type: str
    """`cpu` or `cuda`."""
    capability: str
    """Instruction set of the CPU as torch names it; compute capability of the GPU, e.g. `sm_90`."""
    machine: str
    torch_version: str
    memory_format: str = "contiguous"


@dataclass(frozen=True, slots=True)
class KernelInput:
    """One input of the forward library."""

    kind: KernelInputKind
    name: str
    dtype: str
    shape: tuple[int, ...]
    """Of the activation without the batch size."""
    requires_grad: bool


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """One tensor that the backward libraries get from the forward pass: an input of it, or an output."""

    is_input: bool
    index: int


@dataclass(frozen=True, slots=True)
class KernelFile:
    """One library."""

    role: KernelFileRole
    sha256: str
    """Hex."""
    num_bytes: int

    @property
    def name(self) -> str:
        """What the file is called wherever it lies: the same name never stands for other bytes."""
        return f"{self.role.name.lower()}-{self.sha256}.so"


@dataclass(frozen=True, slots=True)
class KernelManifest:
    """What a kernel is; see `KernelManifest` in the contract for each field."""

    artifact_id: str
    """SHA-256 (hex) of the manifest's bytes."""
    variant: KernelVariant
    min_batch: int
    max_batch: int
    hint_batch: int
    inputs: tuple[KernelInput, ...]
    output_index: int
    mutated_buffers: tuple[str, ...]
    saved: tuple[SavedTensor, ...]
    gradients: tuple[int, ...]
    parameter_gradients: tuple[int, ...]
    files: Mapping[KernelFileRole, KernelFile]
    draws_random: bool
    strategy: str
    compile_s: float
    compiler: str
    options: Mapping[str, str]
    create_unix_s: float

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.num_bytes for file in self.files.values())

    @property
    def key(self) -> str:
        """The wish that it answers."""
        return variant_key(self.variant, self.hint_batch)


@dataclass(frozen=True, slots=True)
class KernelCheck:
    """One thing that the validator looked at."""

    name: str
    passed: bool
    value: float = 0.0
    limit: float = 0.0
    unit: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class KernelReport:
    """What the validator found."""

    artifact_id: str
    validator_version: str
    checks: tuple[KernelCheck, ...]
    load_ms: float
    first_ms: float
    step_ratio: float
    """Time of a training step against the eager module's: 0.8 saves a fifth."""
    parameter_step_ratio: float
    """The same without the gradient of the activation."""
    max_error: float
    resident_bytes: int
    risk_score: float
    hazard_band: HazardBand
    handling_class: HandlingClass
    create_unix_s: float

    @property
    def is_favourable(self) -> bool:
        """Whether it lets seeds use the kernel."""
        return self.handling_class in (HandlingClass.STANDARD, HandlingClass.RESTRICTED)


@dataclass(frozen=True, slots=True)
class Signature:
    """Who vouches for exact bytes."""

    key_id: str
    hmac: bytes


@dataclass(frozen=True, slots=True)
class KernelDocuments:
    """All that proves a kernel, as exact bytes; a report is there once the validator has written one."""

    manifest: bytes
    manifest_signature: Signature
    report: bytes = b""
    report_signature: Signature | None = None


@dataclass(frozen=True, slots=True)
class KernelOrder:
    """Ask the training side to open a kernel; it answers with a KernelLoaded."""

    artifact_id: str
    folder: str
    """A private folder that holds its files and documents, named by the artifact id."""
    copy_ms: float = 0.0
    """Milliseconds that bringing them there took: they count towards the time that a fetch may take."""


@dataclass(frozen=True, slots=True)
class KernelLoaded:
    """A kernel is open and warm, or could not be opened."""

    artifact_id: str
    error_reason: str = ""
    """The catalogue's reason why it could not; empty when it is open."""
    detail: str = ""
    load_ms: float = 0.0
    """To read, prove and open it."""
    prewarm_ms: float = 0.0
    """Of its first forward and backward, off the training thread."""
    resident_bytes: int = 0
    """Memory that it takes."""


@dataclass(frozen=True, slots=True)
class KernelClosed:
    """A kernel has left the training side's memory."""

    artifact_id: str
    cause: str
    """`asked`, `idle`, `room` or `failed`."""


def variant_key(variant: KernelVariant, hint_batch: int) -> str:
    """The name of a wish: SHA-256 (hex) over the variant and the batch size, in one order."""
    facts = {**asdict(variant), "tail_shape": list(variant.tail_shape), "hint_batch": hint_batch}
    facts["parameters"] = {name: float(value) for name, value in variant.parameters.items()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def misfits(variant: KernelVariant, wanted: KernelVariant) -> tuple[str, ...]:
    """Where a kernel's variant is another one than what is wanted, one line each; empty when it fits."""
    pairs = ((name, getattr(variant, name), getattr(wanted, name)) for name in KernelVariant.__slots__)
    return tuple(f"{name} is {is_!r}, not {must!r}" for name, is_, must in pairs if is_ != must)
