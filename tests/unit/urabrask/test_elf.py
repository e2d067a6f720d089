"""What a library asks for: read from its bytes, whatever they are."""

import contextlib
import platform
import random
import subprocess
from pathlib import Path

import pytest

from esperd.urabrask.elf import NotALibraryError, findings, read_library

SOURCE = """
#include <math.h>
{code}
int aoti_torch_get_dim(void *, long *);
double kernel(double x) {{ long dims; return pow(x, 2.5) + aoti_torch_get_dim(0, &dims); }}
"""


def library(folder: Path, code: str = "", *options: str) -> bytes:
    """A small library, compiled."""
    source, built = folder / "kernel.c", folder / "kernel.so"
    source.write_text(SOURCE.format(code=code))
    command = ["gcc", "-O1", "-w", "-shared", "-fPIC", "-o", str(built), str(source), "-lm", *options]
    subprocess.run(command, check=True, timeout=60)
    return built.read_bytes()


def found_in(data: bytes, device_type: str = "cpu") -> tuple[str, ...]:
    return findings(read_library(data), machine=platform.machine(), device_type=device_type)


def test_what_a_kernel_needs_is_no_finding(tmp_path: Path) -> None:
    """torch's C interface, the C library's mathematics, and the compiler's own helpers."""
    data = library(tmp_path)
    facts = read_library(data)
    assert {"aoti_torch_get_dim", "pow"} <= set(facts.imports)
    assert found_in(data) == ()


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        ("int system(const char *); int f(void) { return system(0); }", "it imports system"),
        ("int socket(int, int, int); int f(void) { return socket(1, 2, 3); }", "it imports socket"),
        ("void *dlopen(const char *, int); void *f(void) { return dlopen(0, 1); }", "it imports dlopen"),
        ("int fopen(void); void *f = fopen;", "it imports fopen"),
        ("int PyRun_SimpleString(char *); int f(void) { return PyRun_SimpleString(0); }", "it imports PyRun_SimpleS"),
        ("int _ZNSt6thread4joinEv(void); int f(void) { return _ZNSt6thread4joinEv(); }", "it imports _ZNSt6thread"),
        ("int _ZN5torch3jit4loadEv(void); int f(void) { return _ZN5torch3jit4loadEv(); }", "it imports _ZN5torch"),
        ("int cuLaunchKernel(void); int f(void) { return cuLaunchKernel(); }", "it imports cuLaunchKernel"),
    ],
)
def test_what_no_kernel_needs_is_found(tmp_path: Path, code: str, finding: str) -> None:
    """Called or only pointed to: every name that is bound elsewhere counts."""
    (found,) = found_in(library(tmp_path, code))
    assert found.startswith(finding)


def test_the_driver_is_for_kernels_of_a_gpu(tmp_path: Path) -> None:
    """The same import is right on the one device and wrong on the other."""
    data = library(tmp_path, "int cuLaunchKernel(void); int f(void) { return cuLaunchKernel(); }")
    assert found_in(data, "cuda") == ()
    assert found_in(data, "cpu") != ()


def test_stack_search_path_and_other_libraries_are_looked_at(tmp_path: Path) -> None:
    """What the loader would do besides binding names."""
    data = library(tmp_path, "", "-Wl,-z,execstack", "-Wl,-rpath,/somewhere", "-Wl,--no-as-needed", "-lresolv")
    found = found_in(data)
    assert "it asks for an executable stack" in found
    assert "it has libraries looked for in /somewhere" in found
    assert any(line.startswith("it needs the library libresolv") for line in found)


def test_another_machine_is_found(tmp_path: Path) -> None:
    """A library for another processor."""
    facts = read_library(library(tmp_path))
    assert any("not riscv64" in line for line in findings(facts, machine="riscv64", device_type="cpu"))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(4096)])
def test_what_is_no_library_is_told(data: bytes) -> None:
    """Bytes of any kind are refused in words."""
    with pytest.raises(NotALibraryError, match="it is no"):
        read_library(data)


def test_no_bytes_break_the_reader(tmp_path: Path) -> None:
    """A library with bytes changed or missing is read or refused; nothing else comes out."""
    data, draw = library(tmp_path), random.Random(5)
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(draw.randint(1, 6)):
            broken[draw.randrange(0, 4096 if draw.random() < 0.8 else len(broken))] = draw.randrange(256)
        with contextlib.suppress(NotALibraryError):
            read_library(bytes(broken[: draw.choice([len(broken), draw.randrange(len(broken))])]))
