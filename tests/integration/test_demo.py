"""`esperd demo` as a user runs it: real daemons, real policies, one JSON object, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from esperd.cli.demo.results import ARMS

ROOT = Path("/tmp")


def start_demo(*arguments: str) -> "subprocess.Popen[str]":
    """Start it in a process group of its own, like a job of a shell."""
    return subprocess.Popen(
        [sys.executable, "-m", "esperd.cli.main", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def demo_folders() -> set[Path]:
    """Run directories of demos."""
    return set(ROOT.glob("esperd-demo-*"))


def descendants(pid: int) -> list[psutil.Process]:
    """Every process that a process has started, and theirs."""
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_demo_prints_one_object_and_leaves_nothing() -> None:
    """Exit code 0, the published shape, arms at equal FLOPs within a step of it, processes and files gone."""
    before = demo_folders()
    demo = start_demo("--json", "--random-seeds", "1", "--steps", "600")
    output, errors = demo.communicate(timeout=280)
    assert demo.returncode == 0, errors
    document = json.loads(output)
    assert document["task"] == "digits"
    assert document["random_seeds"] == 1
    assert tuple(document["arms"]) == ARMS
    assert document["arms"]["host"]["steps"] == document["arms"]["tamiyo"]["steps"] == 600
    spent = document["arms"]["tamiyo"]["train_flops"]
    for arm in ("host_equal_flops", "scratch", "static"):
        assert document["arms"][arm]["train_flops"] == pytest.approx(spent, rel=0.02)
    assert document["daemon_pid"] != document["policy_pid"]
    assert not psutil.pid_exists(document["daemon_pid"])
    assert not psutil.pid_exists(document["policy_pid"])
    assert demo_folders() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_of_kernels_ends_with_a_compiled_seed() -> None:
    """A seed computes by a kernel that was made beside the run; the daemon finds no compiler and has none in it."""
    before = demo_folders()
    demo = start_demo("--kernels", "--json", "--steps", "3000")
    output, errors = demo.communicate(timeout=880)
    assert demo.returncode == 0, errors
    document = json.loads(output)
    assert document["compiler_modules_in_daemon"] == "none"
    (seed,) = [seed for seed in document["seeds"] if seed["kernel_artifact_id"]]
    kernels = {kernel["artifact_id"]: kernel for kernel in document["kernels"]}
    assert kernels[seed["kernel_artifact_id"]]["state"] == "OFFERED"
    assert [swap["seed_id"] for swap in document["swaps"]] == [seed["seed_id"]]
    assert seed["germinated_step"] < document["swaps"][0]["step"] <= document["steps"] == 3000
    assert not psutil.pid_exists(document["daemon_pid"])
    assert not psutil.pid_exists(document["compiler_pid"])
    assert demo_folders() == before


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_breaking_the_demo_off_ends_every_process_of_it(number: signal.Signals) -> None:
    """Exit code 130, no daemon, policy or worker goes on, and no file stays."""
    before = demo_folders()
    demo = start_demo("--random-seeds", "2")
    deadline_s = time.monotonic() + 60
    while len(descendants(demo.pid)) < 3:
        assert demo.poll() is None, demo.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    children = descendants(demo.pid)
    os.killpg(demo.pid, number)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert demo_folders() == before
