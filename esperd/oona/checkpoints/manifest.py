"""What a checkpoint says about itself: its manifest, written last and read strictly.

Any thread; pure values and text. A field that is unknown, missing or of the wrong type makes the whole checkpoint
unusable, since a manifest that was half understood would restore half a run. It ends in a hash of itself, so that not
even a turned bit in a number is taken for a number.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import CheckpointKind

FORMAT = 1
"""Version of the manifest, of state.json and of how tensors are named."""
MANIFEST_NAME = "manifest.json"
GOOD_NAME = "GOOD"
"""Empty file beside the manifest: the steps that followed this state stayed healthy."""

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,159}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a checkpoint."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a checkpoint but the state itself."""

    checkpoint_id: str
    """Unique within the run; the name of its directory."""
    kind: CheckpointKind
    run_id: str
    timeline: int
    global_step: int
    epoch: int
    sequence: int
    """The last outcome that the trainer had given before."""
    revision: int
    """The trainer's own revision at that moment."""
    journal_revision: int
    """The newest revision that was durable in the journal then."""
    written_unix_s: float
    esperd_version: str
    torch_version: str
    task: str
    note: str
    config: Mapping[str, Any]
    """The resolved settings, secrets left out."""
    num_parameters: int
    pause_ms: float
    """For how long the training thread stood still."""
    files: tuple[FileEntry, ...] = ()
    """Filled in when the checkpoint is committed."""

    @property
    def num_bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(entry.num_bytes for entry in self.files)


def is_valid_id(text: str) -> bool:
    """Whether `text` may name a run or a checkpoint: one path component that is never hidden."""
    return _ID.fullmatch(text) is not None


def is_valid_file_name(name: str) -> bool:
    """Whether `name` may be a file of a checkpoint."""
    return _FILE_NAME.fullmatch(name) is not None and name not in (MANIFEST_NAME, GOOD_NAME)


def to_json(manifest: Manifest) -> bytes:
    """The manifest as text, the same bytes for the same values. Raises ValueError for what could not be read again."""
    fields = {name: getattr(manifest, name) for name in _CHECKS}
    fields["kind"] = manifest.kind.name
    fields["config"] = dict(manifest.config)
    fields["files"] = [{"name": f.name, "num_bytes": f.num_bytes, "sha256": f.sha256} for f in manifest.files]
    if problem := _first_problem(fields):
        raise ValueError(problem)
    fields = {"format": FORMAT, **fields}
    body = json.dumps(fields, indent=1, allow_nan=False)
    fields["sha256"] = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps(fields, indent=1).encode() + b"\n"


def from_json(data: bytes, checkpoint_id: str) -> Manifest:
    """Read a manifest.

    Raises:
        EsperdError: CHECKPOINT_VERSION for another format, CHECKPOINT_CORRUPT for everything else that is not right.
    """
    try:
        fields = strict_json(data)
    except ValueError as error:
        raise corrupt(checkpoint_id, f"its manifest is not strict JSON ({error})") from error
    if not isinstance(fields, dict):
        raise corrupt(checkpoint_id, "its manifest is no object")
    found = fields.pop("format", None)
    if type(found) is int and found != FORMAT:
        raise EsperdError("CHECKPOINT_VERSION", checkpoint_id=checkpoint_id, found=found, known=FORMAT)
    fields.pop("sha256", None)  # whether it is right is seen by writing the manifest once more
    problem = "its manifest has no format" if type(found) is not int else _first_problem(fields)
    if problem:
        raise corrupt(checkpoint_id, problem)
    fields["kind"] = CheckpointKind[fields["kind"]]
    fields["files"] = tuple(FileEntry(**entry) for entry in fields["files"])
    manifest = Manifest(**fields)
    if to_json(manifest) != data:
        raise corrupt(checkpoint_id, "its manifest is not what was written")
    return manifest


def strict_json(data: bytes) -> Any:
    """Parse JSON; a key that comes twice, NaN, infinity and nesting without end are errors (ValueError)."""
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def corrupt(checkpoint_id: str, detail: str) -> EsperdError:
    """The error for a checkpoint that must not be used."""
    return EsperdError("CHECKPOINT_CORRUPT", checkpoint_id=checkpoint_id, detail=detail)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key comes twice")
    return fields


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def _first_problem(fields: dict[str, Any]) -> str:
    if unknown := sorted(fields.keys() - _CHECKS.keys()):
        return f"its manifest has an unknown field {unknown[0]}"
    if missing := sorted(_CHECKS.keys() - fields.keys()):
        return f"its manifest lacks the field {missing[0]}"
    wrong = next((name for name, check in _CHECKS.items() if not check(fields[name])), "")
    return f"the field {wrong} of its manifest is not valid" if wrong else ""


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_id(value: Any) -> bool:
    return type(value) is str and is_valid_id(value)


def _is_kind(value: Any) -> bool:
    return type(value) is str and value in CheckpointKind.__members__ and CheckpointKind[value].value != 0


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _are_files(value: Any) -> bool:
    if type(value) is not list or not all(_is_file(entry) for entry in value):
        return False
    return len({entry["name"] for entry in value}) == len(value)


def _is_file(entry: Any) -> bool:
    if type(entry) is not dict or entry.keys() != {"name", "num_bytes", "sha256"}:
        return False
    name, sha256 = entry["name"], entry["sha256"]
    if type(name) is not str or type(sha256) is not str or not _is_count(entry["num_bytes"]):
        return False
    return is_valid_file_name(name) and _SHA256.fullmatch(sha256) is not None


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "checkpoint_id": _is_id,
    "kind": _is_kind,
    "run_id": _is_id,
    "timeline": _is_count,
    "global_step": _is_count,
    "epoch": _is_count,
    "sequence": _is_count,
    "revision": _is_count,
    "journal_revision": _is_count,
    "written_unix_s": _is_number,
    "esperd_version": _is_text,
    "torch_version": _is_text,
    "task": _is_text,
    "note": _is_text,
    "config": _is_object,
    "num_parameters": _is_count,
    "pause_ms": _is_number,
    "files": _are_files,
}
