"""Serve one configuration until the process is told to end: one daemon after another, one for each run.

Main thread. Sets what holds for the whole process (log, interpreter, event loop, signals) and turns the end into an
exit status: 0 when the daemon ended as it was asked to, 1 when the run failed or the trainer hung, by SIGINT when a
person broke it off.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from esperd.config.origin import Configuration
from esperd.weatherlight.core_dumps import forbid_core_dumps
from esperd.weatherlight.daemon import Daemon
from esperd.weatherlight.log import configure_log
from esperd.weatherlight.open_files import allow_open_files
from esperd.weatherlight.run_directory import RunDirectory
from esperd.weatherlight.signals import SignalRecord

SWITCH_INTERVAL_S = 0.001
"""How long one thread may hold the interpreter while another waits. Python's 5 ms make the slowest of a hundred calls
40 ms late beside a busy trainer, 1 ms makes it 10 (measured; design research, control plane, section 3)."""


def serve(configuration: Configuration, *, new_run: bool = False, export_command: Sequence[str] = ()) -> int:
    """Run the daemon, which goes on with its directory's run, if there is one and no `new_run` is wanted.

    The task's module is looked for beside the file first; `export_command` starts an export of this configuration, up
    to its options. Returns the exit status.

    Raises:
        EsperdError: the daemon could not be started (directory, journal, key ring, address, a run that does not fit).
    """
    settings = configuration.settings
    log = configure_log(settings.log)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if not settings.control.allow_core_dumps:
        forbid_core_dumps()
    allow_open_files(settings.control, log)
    directory = RunDirectory(Path(settings.run.directory))
    try:
        first = Daemon(configuration, directory, log, new_run=new_run, export_command=export_command)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            end = runner.run(_serve_runs(first))
    finally:
        directory.release()
    if not end.has_trainer_left:
        # Interpreter shutdown with a thread inside torch may crash or hang; everything durable is closed already.
        sys.stderr.flush()
        os._exit(end.status)
    if end.is_by_sigint and end.status == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return end.status


@dataclass(frozen=True, slots=True)
class _End:
    """How the last daemon of the process ended."""

    status: int
    is_by_sigint: bool
    has_trainer_left: bool


async def _serve_runs(daemon: Daemon) -> _End:
    """Serve, and begin another run whenever the control plane asks for one.

    Signals are recorded across all of it: one that comes between two runs ends the second before it has begun.
    """
    with SignalRecord(asyncio.get_running_loop()) as signals:
        while True:
            status = await daemon.run(signals)
            following = daemon.following() if daemon.has_trainer_left and not signals.received else None
            if following is None:
                return _End(status, signals.ends_by_sigint, daemon.has_trainer_left)
            daemon = following
            gc.collect()  # the model of the run that is over goes before the next one is built
