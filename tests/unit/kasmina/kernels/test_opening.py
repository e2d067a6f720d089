"""The order of trust: nothing is opened before bytes, signatures, report and machine are as they must be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel, read_documents
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import (
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    REPORT_NAME,
    REPORT_SIGNATURE_NAME,
    read_manifest,
)
from tests.unit.kasmina.kernels.made import CPU, ROLES, linear_variant, manifest_bytes, write_libraries
from tests.unit.kasmina.kernels.offered import Witness, offered

LIBRARIES = {role: role.name.encode() for role in ROLES}
"""No libraries at all: whoever opens them finds that out."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A kernel that is as it must be up to the moment when it is opened."""
    return made(tmp_path, manifest_bytes(libraries=LIBRARIES))


def made(tmp_path: Path, manifest: bytes) -> Path:
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    (compiled / MANIFEST_NAME).write_bytes(manifest)
    write_libraries(compiled, read_manifest(manifest), LIBRARIES)
    return tmp_path / "local" / offered(compiled, tmp_path / "local")


def reason(folder: Path) -> str:
    with pytest.raises(EsperdError) as refused:
        open_kernel(folder, Witness(), this_machine(CPU))
    return refused.value.reason


def library(folder: Path) -> Path:
    return next(folder.glob("backward-*.so"))


def test_everything_is_right_but_the_library_is_none(folder: Path):
    """What the loader of the system refuses is a refusal too, and tells why."""
    with pytest.raises(EsperdError) as refused:
        open_kernel(folder, Witness(), this_machine(CPU))
    assert refused.value.reason == "KERNEL_UNLOADABLE"
    assert ".so" in refused.value.message


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: library(folder).write_bytes(b"other"), "KERNEL_CORRUPT"),
        (lambda folder: library(folder).unlink(), "KERNEL_CORRUPT"),
        (lambda folder: (folder / MANIFEST_NAME).unlink(), "KERNEL_MANIFEST_INVALID"),
        (lambda folder: (folder / MANIFEST_NAME).write_bytes(b"\xff"), "KERNEL_MANIFEST_INVALID"),
        (lambda folder: (folder / MANIFEST_SIGNATURE_NAME).write_bytes(b"{}"), "KERNEL_MANIFEST_INVALID"),
        (lambda folder: (folder / REPORT_SIGNATURE_NAME).write_bytes(b"[]"), "KERNEL_REPORT_INVALID"),
        (lambda folder: (folder / REPORT_NAME).unlink(), "KERNEL_REPORT_INVALID"),
        (lambda folder: (folder / REPORT_NAME).write_bytes(b"better"), "KERNEL_REPORT_INVALID"),
    ],
)
def test_what_is_damaged_is_refused_at_the_right_place(folder: Path, damage: Callable[[Path], object], expected: str):
    """And nothing of it has come into the process."""
    damage(folder)
    assert reason(folder) == expected


def test_a_manifest_of_others_is_refused(folder: Path, tmp_path: Path):
    """Other bytes under the same signature: digests of the libraries are right, the signature is not."""
    other = manifest_bytes(libraries=LIBRARIES, hint_batch=4)
    (folder / MANIFEST_NAME).write_bytes(other)
    assert reason(folder) == "KERNEL_SIGNATURE_INVALID"


@pytest.mark.parametrize("fact", ["torch_version", "capability", "machine"])
def test_a_kernel_for_another_machine_is_never_opened(tmp_path: Path, fact: str):
    """However well it is signed."""
    variant = replace(linear_variant(), **{fact: "another"})
    folder = made(tmp_path, manifest_bytes(variant, LIBRARIES))
    with pytest.raises(EsperdError) as refused:
        open_kernel(folder, Witness(), this_machine(CPU))
    assert refused.value.reason == "KERNEL_MISFIT"
    assert f"{fact} is another" in refused.value.message


def test_documents_are_read_as_they_are(folder: Path):
    """Exact bytes, and a report only where there is one."""
    documents = read_documents(folder)
    assert documents.manifest == (folder / MANIFEST_NAME).read_bytes()
    assert documents.report == (folder / REPORT_NAME).read_bytes()
    (folder / REPORT_NAME).unlink()
    assert read_documents(folder).report_signature is None
