"""`esper tezzeret serve`: a compiler at work for one daemon.

The command line of the compiler's process: options in, one line per event out. The logs go to stderr.
"""

import asyncio
import contextlib
import fcntl
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from esper import numbers
from esper.address import Target, TlsPaths, find_target, tls_options
from esper.at_work import session_options, set_up_log, state_directory
from esper.client.errors import local_error
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import kernel_pb2
from esper.text import plain
from esper.tezzeret.agent import Agent, Happening, Machine
from esper.tezzeret.breaker import Breaker
from esper.tezzeret.cxx import require_cxx
from esper.tezzeret.queue import Queue, Stage
from esper.tezzeret.service import Service, ServiceSettings
from esper.tezzeret.worker import CHILD, Limits, Worker

COMPILER_KEYS = ("tezzeret.key", "operator.key")
"""Key files of a compiler, beside the socket."""
PROBE_S = 120.0
"""How long torch may take to say what this machine is."""


@click.command()
@click.option("-a", "--address", envvar="ESPER_ADDRESS", help="unix:PATH, tls:HOST:PORT or HOST:PORT of the daemon.")
@click.option("--key", envvar="ESPER_KEY", type=click.Path(dir_okay=False),
              help="Key file with the permission compile; it signs kernels.")  # fmt: skip
@tls_options
@click.option("--work-dir", type=click.Path(file_okay=False, path_type=Path), envvar="ESPER_STATE_DIR",
              help="Where the queue and unfinished kernels are kept; one compiler each.")  # fmt: skip
@click.option("--jobs", "num_jobs", type=click.IntRange(1, 256), default=1, show_default=True, metavar="N",
              help="Compilations at once.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=numbers.LIFETIME, default=600.0, show_default=True, metavar="SECONDS",
              help="How long one compilation may take.")  # fmt: skip
@click.option("--memory", "memory_gb", type=numbers.FiniteRange(0, 1e6), default=8.0, show_default=True, metavar="GB",
              help="Private memory that one process of it may take; 0 sets no limit.")  # fmt: skip
@click.option("--nice", "niceness", type=click.IntRange(0, 19), default=10, show_default=True,
              help="Added to the priority number of compilations.")  # fmt: skip
@click.option("--attempts", "max_attempts", type=click.IntRange(1, 100), default=3, show_default=True,
              help="Attempts at a wish; all but the first with the conservative strategy.")  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try again what an earlier start has given up.")
@session_options
@click.option("-o", "--output", type=click.Choice(["text", "json", "none"]), default="text", show_default=True,
              help="What happens, on stdout: as text, as JSON lines, or none.")  # fmt: skip
def serve(
    address: str | None,
    key: str | None,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    work_dir: Path | None,
    num_jobs: int,
    timeout_s: float,
    memory_gb: float,
    niceness: int,
    max_attempts: int,
    retry_failed: bool,
    connect_timeout: float,
    reconnect_timeout: float,
    log_level: str,
    output: str,
) -> None:
    """Compile what a daemon's sites and seeds could use, upload it, and tell how it goes.

    What seeds wait for goes first. Each compilation runs in a process of its own, at low priority, with limits. A
    compiler that was stopped or killed goes on where it stood. Needs a C++ compiler: g++, or what CXX names. Leaves
    with exit code 0 when a SIGTERM asks for it.
    """
    set_up_log(log_level)
    directory = work_dir or state_directory("tezzeret")
    limits = Limits(timeout_s, int(memory_gb * 2**30), niceness)
    settings = ServiceSettings(num_jobs, connect_timeout, reconnect_timeout)

    def work() -> None:
        target = find_target(address, key, COMPILER_KEYS, TlsPaths(tls_ca, tls_cert, tls_key))
        if target.credentials is None:
            raise local_error("NO_KEY")
        require_cxx()
        with _alone_in(directory), _queue_in(directory) as queue:
            if retry_failed:
                queue.renew_given_up()
            agent = Agent(
                queue,
                Breaker(time.monotonic),
                machines(),
                max_attempts=max_attempts,
                tell=_TELLERS[output],
                wall_clock=time.time,
            )
            worker = Worker(directory, limits)
            worker.clear_all_but(frozenset(job.variant_key for job in queue.jobs(Stage.COMPILED)))
            asyncio.run(_serve(target, agent, worker, settings, output))

    run_reporting(work)


async def _serve(target: Target, agent: Agent, worker: Worker, settings: ServiceSettings, output: str) -> None:
    greet = _greeter(output)
    await Service(target, agent, worker, settings, greet=greet, monotonic=time.monotonic).run()


def machines() -> tuple[Machine, ...]:
    """For which processes kernels made here are; asked of a process, so that this one does without torch.

    Raises:
        Failed: torch cannot be used.
    """
    try:
        found = subprocess.run(
            [sys.executable, "-m", CHILD], check=True, capture_output=True, text=True, timeout=PROBE_S
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "it said nothing").split("\n")[-1]
        raise Failed(f"torch cannot be used: {last}. Install esperd[train].") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"torch did not load within {PROBE_S:g} s. Try again when the machine is less busy.") from None
    return tuple(Machine(**one) for one in json.loads(found.stdout))


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold the work directory; raises Failed when another compiler does."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another compiler works in {directory}. Give this one its own --work-dir.") from None
        yield


@contextlib.contextmanager
def _queue_in(directory: Path) -> Iterator[Queue]:
    path = directory / "queue.sqlite3"
    try:
        with contextlib.closing(Queue(path)) as queue:
            yield queue
    except sqlite3.Error as error:
        raise Failed(f"{path} cannot be used: {error}. Free disk space, or move the file away.") from error


def _greeter(output: str) -> Callable[[str], None]:
    """Says on stderr what a session is for, to somebody who reads along."""

    def greet(run_id: str) -> None:
        if output == "text":
            click.echo(f"compiles for run {run_id}" if run_id else "compiles for a daemon without a run yet", err=True)

    return greet


def _tell_text(told: Happening) -> None:
    job = told.job
    variant = kernel_pb2.KernelVariant.FromString(job.variant)
    shape = "x".join(map(str, variant.tail_shape))
    cast = f"/{variant.autocast_dtype}" if variant.autocast_dtype else ""
    what = f"{told.what} {job.blueprint_id} {shape} {variant.dtype}{cast} batch {job.hint_batch}"
    more = {
        "compiling": f"attempt {job.num_attempts}, {job.strategy}",
        "compiled": f"kernel {job.artifact_id[:12]}",
        "uploaded": f"kernel {job.artifact_id[:12]}",
        "offered": f"kernel {job.artifact_id[:12]}",
    }.get(told.what, told.detail)
    click.echo(plain(f"{what}: {more}"))


def _tell_json(told: Happening) -> None:
    job = asdict(told.job)
    del job["variant"]
    click.echo(json.dumps({"what": told.what, "detail": told.detail, **job}))


def _tell_nothing(told: Happening) -> None:
    """The daemon knows all of it too."""


_TELLERS: dict[str, Callable[[Happening], None]] = {"text": _tell_text, "json": _tell_json, "none": _tell_nothing}
