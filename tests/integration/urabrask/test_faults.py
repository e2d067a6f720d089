"""Kernels that are wrong in one way each: the validator finds it, says so, and outlives it."""

import asyncio
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

from esperd.config.settings import KernelSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import MANIFEST_NAME, is_signed, read_manifest, read_report
from esperd.leyline.kernels import KernelReport
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import HandlingClass, HazardBand
from esperd.urabrask.validator import Validator, sign_report
from tests.kernel_faults import make, write
from tests.kernels import compiled

# How fast anything is must not decide a test: only a kernel that wastes hundreds of times its work is slow here.
SETTINGS = KernelSettings(max_step_ratio=20.0, max_load_ms=2000.0, validation_steps=20, validation_timeout_s=60.0)
NOW_S = 1_750_000_000.0


def validator(**options: object) -> Validator:
    return Validator(lambda: NOW_S, structlog.stdlib.get_logger("test"), **options)  # type: ignore[arg-type]


async def report_on(
    tmp_path: Path, fault: str = "NONE", *, flags: tuple[str, ...] = (), settings: KernelSettings = SETTINGS
) -> KernelReport:
    manifest = make(tmp_path / "kernel", fault, flags=flags)
    return await validator().validate(tmp_path / "kernel", manifest, settings)


def failed(report: KernelReport) -> dict[str, str]:
    """The checks that failed, with what was seen."""
    return {check.name: check.detail for check in report.checks if not check.passed}


async def test_an_honest_kernel_passes(tmp_path: Path) -> None:
    """Everything is measured and within its limit; the report says what a kernel costs, and is signed as it is."""
    report = await report_on(tmp_path)
    assert failed(report) == {}
    assert report.handling_class is HandlingClass.STANDARD
    assert report.hazard_band is HazardBand.LOW
    assert report.create_unix_s == NOW_S
    assert report.load_ms > 0
    assert report.first_ms > 0
    assert report.step_ratio > 0
    assert report.parameter_step_ratio > 0
    assert 0 < report.max_error < 1e-5
    assert report.risk_score < 0.4
    document, signature = sign_report("validator-1", Secret(b"secret"), report)
    assert read_report(document) == report
    assert is_signed(b"secret", b"esper.leyline.v1.KernelReport\0", document, signature.hmac)


@pytest.mark.timeout(300)  # the first run on a machine compiles
async def test_a_compiled_kernel_passes(tmp_path: Path) -> None:
    """What the compiler makes is within every limit; its opening brings no compiler into the process."""
    source = compiled("residual_mlp", (8, 16))
    shutil.copytree(source, tmp_path / "kernel")
    manifest = write(tmp_path / "kernel", read_manifest((source / MANIFEST_NAME).read_bytes()))
    report = await validator().validate(tmp_path / "kernel", manifest, SETTINGS)
    assert failed(report) == {}
    assert report.handling_class is HandlingClass.STANDARD
    assert 0 < report.resident_bytes < 16 << 20


@pytest.mark.parametrize(
    ("fault", "checks"),
    [
        ("LIES", {"parameter_gradients", "parameter_gradients_alone"}),
        ("LIES_ALONE", {"parameter_gradients_alone"}),
        ("LEAKS", {"leak"}),
        ("SWALLOWS_NAN", {"not_a_number"}),
        ("UNCHECKED", {"refused_inputs"}),
        ("KEEPS_STATE", {"output"}),
    ],
)
async def test_a_kernel_that_computes_something_else_is_found_out(tmp_path: Path, fault: str, checks: set[str]) -> None:
    """Each fault fails the check that is for it, and the kernel is never offered."""
    report = await report_on(tmp_path, fault)
    assert checks <= set(failed(report))
    assert report.hazard_band is HazardBand.CRITICAL
    assert report.handling_class is HandlingClass.QUARANTINE
    assert report.risk_score == 1.0


async def test_a_slow_kernel_is_useless_not_harmful(tmp_path: Path) -> None:
    """It is quarantined for nothing but its step's time."""
    report = await report_on(tmp_path, "SLOW")
    assert set(failed(report)) == {"step_ratio", "parameter_step_ratio"}
    assert report.hazard_band is HazardBand.HIGH
    assert report.handling_class is HandlingClass.QUARANTINE


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("CRASHES_ON_LOAD", "ended by SIGSEGV during the trial 'opening'"),
        ("CRASHES_IN_RUN", "ended by SIGSEGV during the trial 'opening'"),
        ("CONNECTS", "ended by SIGSYS during the trial 'opening'"),
        ("FORKS", "ended by SIGSYS during the trial 'opening'"),
        ("EXECUTES", "ended by SIGSYS during the trial 'opening'"),
        ("WRITES", "ended by SIGSYS during the trial 'opening'"),
    ],
)
async def test_a_kernel_that_ends_its_process_ends_nothing_else(tmp_path: Path, fault: str, words: str) -> None:
    """The report says how the process ended and in which trial; what no kernel asks of the system is its end."""
    report = await report_on(tmp_path, fault)
    assert words in failed(report)["survived"]
    assert report.handling_class is HandlingClass.QUARANTINE
    assert sorted(path.suffix for path in (tmp_path / "kernel").iterdir()) == [".binpb", ".json", ".so", ".so", ".so"]


async def test_kernels_that_hang_are_ended_in_time(tmp_path: Path) -> None:
    """After the timeout the process is killed, whether it hangs while it is opened or in a run."""
    # Long enough for a busy machine to come as far as the kernel; both wait at once.
    settings = replace(SETTINGS, validation_timeout_s=14.0)
    faults = ("HANGS_ON_LOAD", "HANGS_IN_RUN")
    reports = await asyncio.gather(*(report_on(tmp_path / fault, fault, settings=settings) for fault in faults))
    for report in reports:
        assert "it did not end in time" in failed(report)["survived"]


async def test_a_kernel_that_eats_memory_meets_its_limit(tmp_path: Path) -> None:
    """The address space is bounded, and the machine's memory is not touched."""
    report = await report_on(tmp_path, "EATS_MEMORY", settings=replace(SETTINGS, validation_memory_bytes=3 << 30))
    assert "SIGABRT" in failed(report)["survived"]


@pytest.mark.parametrize("name", ["system", "socket"])
async def test_a_forbidden_import_is_found_before_anything_is_opened(tmp_path: Path, name: str) -> None:
    """The library is not opened: nothing but its bytes was looked at."""
    report = await report_on(tmp_path, "CRASHES_ON_LOAD", flags=(f"-DIMPORTS_{name.upper()}",))
    assert set(failed(report)) == {"imports"}
    assert f"it imports {name}" in failed(report)["imports"]


async def test_an_executable_stack_is_found_before_anything_is_opened(tmp_path: Path) -> None:
    """A library that would have every stack of the daemon made executable."""
    report = await report_on(tmp_path, flags=("-Wl,-z,execstack",))
    assert "executable stack" in failed(report)["imports"]


async def test_a_native_error_is_the_kernels_fault(tmp_path: Path) -> None:
    """A backward that always raises fails its trial, with what it raised."""
    report = await report_on(tmp_path, "RAISES")
    assert "RuntimeError" in failed(report)["opening"]
    assert report.hazard_band is HazardBand.CRITICAL


async def test_a_kernel_that_claims_to_have_passed_has_not(tmp_path: Path) -> None:
    """Whoever says that nothing more need be tried, without a reason, is believed nothing."""
    report = await report_on(tmp_path, "REPORTS")
    assert {"output", "leak", "step_ratio"} <= set(failed(report))
    assert report.hazard_band is HazardBand.CRITICAL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"torch_version": "1.0.0"}, "torch_version is '1.0.0'"),
        ({"blueprint_sha256": "0" * 64}, "blueprint_sha256 is"),
        ({"blueprint_id": "unheard_of"}, "no blueprint 'unheard_of'"),
        ({"parameters": {"width": 3.0}}, "has no parameter 'width'"),
        ({"dtype": "float33"}, "no dtype 'float33'"),
    ],
)
async def test_a_kernel_for_something_else_is_not_opened(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """What is not for this machine, or for no blueprint that there is, cannot be tried here, and would be no use."""
    variant = make(tmp_path / "kernel", "CRASHES_ON_LOAD").variant
    other = make(tmp_path / "other", "CRASHES_ON_LOAD", changes={"variant": replace(variant, **changes)})
    report = await validator().validate(tmp_path / "other", other, SETTINGS)
    assert set(failed(report)) == {"fits"}
    assert words in failed(report)["fits"]
    assert report.hazard_band is HazardBand.HIGH


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
async def test_a_kernel_for_a_device_that_is_not_there_is_not_opened(tmp_path: Path) -> None:
    """It fits nothing here; nobody is harmed."""
    variant = make(tmp_path / "kernel", "CRASHES_ON_LOAD").variant
    other = make(tmp_path / "other", "CRASHES_ON_LOAD", changes={"variant": replace(variant, device_type="cuda")})
    report = await validator().validate(tmp_path / "other", other, SETTINGS)
    assert set(failed(report)) == {"fits"}


async def test_a_manifest_with_tensors_that_the_blueprint_has_not_is_refused(tmp_path: Path) -> None:
    """What a kernel takes in is what the blueprint has, whatever its manifest says."""
    manifest = make(tmp_path / "kernel")
    wrong = tuple(replace(one, name="other") if one.name == "bias" else one for one in manifest.inputs)
    again = make(tmp_path / "other", changes={"inputs": wrong})
    report = await validator().validate(tmp_path / "other", again, SETTINGS)
    assert "no parameter other" in failed(report)["equality"]


async def test_a_caller_who_gives_up_ends_the_process(tmp_path: Path) -> None:
    """Nothing goes on behind a cancelled validation, and the next one has its turn."""
    manifest = make(tmp_path / "kernel", "HANGS_ON_LOAD")
    one = validator()
    before = _children()
    task = asyncio.create_task(one.validate(tmp_path / "kernel", manifest, SETTINGS))
    until = time.monotonic() + 30
    while not _children() - before and time.monotonic() < until:
        await asyncio.sleep(0.05)
    assert _children() - before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _children() == before
    with pytest.raises(EsperdError):  # the lock is free: this one is told at once that its folder holds no kernel
        await one.validate(tmp_path, manifest, SETTINGS)


async def test_kernels_are_validated_one_after_the_other(tmp_path: Path) -> None:
    """Two that are asked for at once are never tried at once: each would slow the other's steps."""
    manifest = make(tmp_path / "kernel", "CRASHES_ON_LOAD")
    one = validator()
    before, most = _children(), 0
    tasks = [asyncio.create_task(one.validate(tmp_path / "kernel", manifest, SETTINGS)) for _ in range(2)]
    while not all(task.done() for task in tasks):
        most = max(most, len(_children() - before))
        await asyncio.sleep(0.02)
    assert most == 1
    assert all("survived" in failed(task.result()) for task in tasks)


def _children() -> set[int]:
    """Processes that this one has started and that are still there."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found
