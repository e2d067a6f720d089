"""`esper tezzeret serve` beside a daemon that finds no compiler: seeds grow at once, and their kernels come later."""

import asyncio
import signal
import time

import psutil
import pytest
from esper.leyline.v1.kernel_pb2 import (
    KERNEL_STATE_COMPILING,
    KERNEL_STATE_OFFERED,
    KERNEL_STATE_VALIDATING,
)
from esper.leyline.v1.vocabulary_pb2 import TRAINER_PHASE_TRAINING

from tests.integration.daemon.process import DaemonProcess, until_phase
from tests.integration.kernels.beside import (
    PATIENCE_S,
    Beside,
    compiler_modules,
    germinate,
    id_of,
    until_kernel,
    until_seed,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COMPILE_S = 400.0
WORKER = "esperd.urabrask.worker"


async def test_a_seed_grows_eager_and_is_swapped_later(beside: Beside) -> None:
    """GERMINATE waits for nothing; the compiler, killed in its work and started again, makes what the seed waits for.

    Nothing that generates code is in the daemon's process, then or afterwards.
    """
    daemon = beside.start()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        seed_id = await germinate(client)
        assert not (await client.seed(seed_id)).seed.kernel_artifact_id
        first = beside.compiler()
        await _until(lambda: _has(client, KERNEL_STATE_COMPILING), daemon)
        first.send_signal(signal.SIGKILL)
        first.wait()
        beside.compiler()
        await _until(lambda: _computes_by_a_kernel(client, seed_id), daemon)
        seed = (await client.seed(seed_id)).seed
        kernel = (await client.kernel(seed.kernel_artifact_id)).kernel
        assert (kernel.state, list(kernel.seed_ids)) == (KERNEL_STATE_OFFERED, [seed_id])
        assert kernel.num_waiting_seeds == 0
        assert await compiler_modules(client) == "none"
    beside.end()


async def test_a_validator_that_is_killed_costs_the_daemon_nothing(beside: Beside) -> None:
    """Its process ends by SIGKILL before it has looked at anything: training goes on, and the kernel is tried again."""
    folder = beside.kernel()
    daemon = beside.start()
    async with daemon.client() as client:
        await _upload(beside, daemon, client, folder)
        (await _validator(daemon)).kill()
        before = (await client.run()).run.global_step
        await _until(lambda: _is_beyond(client, before), daemon)
        assert (await client.kernel(id_of(folder))).kernel.state == KERNEL_STATE_VALIDATING
        await daemon.until_logged("SIGKILL")
        await _until(lambda: _has(client, KERNEL_STATE_OFFERED), daemon)
    beside.end()


async def test_a_daemon_that_is_killed_validates_again(beside: Beside) -> None:
    """SIGKILL while the validator works: the next start goes on with that kernel, and no validator is left behind."""
    folder = beside.kernel()
    daemon = beside.start()
    async with daemon.client() as client:
        await _upload(beside, daemon, client, folder)
        orphan = await _validator(daemon)
    beside.kill()
    daemon = beside.start()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await until_kernel(client, id_of(folder), KERNEL_STATE_OFFERED)
        seed_id = await germinate(client)
        await until_seed(client, seed_id, lambda seed: seed.kernel_artifact_id == id_of(folder))
    beside.end()
    psutil.wait_procs([orphan], timeout=10)
    assert not orphan.is_running()


async def _upload(beside: Beside, daemon: DaemonProcess, client, folder) -> None:
    """Upload a kernel to a daemon that trains, and see that it is being validated."""
    await until_phase(client, TRAINER_PHASE_TRAINING)
    await daemon.ctl("kernels", "upload", folder, key=beside.compiler_key)
    await until_kernel(client, id_of(folder), KERNEL_STATE_VALIDATING)


async def _validator(daemon: DaemonProcess) -> psutil.Process:
    """The validator's process, once there is one."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        for child in psutil.Process(daemon.process.pid).children(recursive=True):
            if WORKER in child.cmdline():
                return child
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


async def _until(holds, daemon: DaemonProcess) -> None:
    deadline_s = time.monotonic() + COMPILE_S
    while not await holds():
        assert daemon.process.poll() is None, daemon.log
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.1)


async def _has(client, state) -> bool:
    return bool((await client.kernels(states=[state])).kernels)


async def _computes_by_a_kernel(client, seed_id: str) -> bool:
    return bool((await client.seed(seed_id)).seed.kernel_artifact_id)


async def _is_beyond(client, step: int) -> bool:
    return (await client.run()).run.global_step > step
