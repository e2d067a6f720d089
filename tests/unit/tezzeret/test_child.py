"""The compiling process itself, as far as it goes without compiling; what it compiles is tested beside the compiler."""

from pathlib import Path

import torch
from esper.leyline.v1.kernel_pb2 import KernelVariant
from esper.tezzeret.queue import Job, Stage
from esper.tezzeret.serve import machines
from esper.tezzeret.worker import Failure, Limits, Worker

from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.variant import variant_for
from esperd.leyline.kernel_documents import variant_message


def variant() -> KernelVariant:
    here = this_machine(torch.device("cpu"))
    blueprint = standard_registry().get("residual_mlp")
    return variant_message(variant_for(blueprint, {}, (16,), torch.float32, torch.float32, None, here))


def job(wanted: KernelVariant) -> Job:
    data = wanted.SerializeToString()
    return Job("k" * 64, data, "residual_mlp", 8, 0, Stage.COMPILING, "standard", 1, 0, 0, 0.0, "", "")


async def test_a_blueprint_that_is_not_here_is_refused_for_good(tmp_path: Path) -> None:
    """No other attempt of this compiler would know it."""
    wanted = variant()
    wanted.blueprint_id = "none_such"
    failure = await Worker(tmp_path, Limits()).compile(job(wanted))
    assert isinstance(failure, Failure)
    assert failure.is_final
    assert "none_such" in failure.detail


async def test_another_source_of_a_blueprint_is_refused_for_good(tmp_path: Path) -> None:
    """What would come out would compute something else than the run's own blueprint."""
    wanted = variant()
    wanted.blueprint_sha256 = "0" * 64
    failure = await Worker(tmp_path, Limits()).compile(job(wanted))
    assert isinstance(failure, Failure)
    assert failure.is_final
    assert failure.detail.startswith("what is compiled here is for another variant: blueprint_sha256 is ")


def test_the_machine_is_told_as_the_daemon_tells_it() -> None:
    """Wishes of a daemon on this machine are this compiler's."""
    assert any(machine.makes(variant()) for machine in machines())
