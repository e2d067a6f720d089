"""Serve one configuration until the daemon ends: the process around the supervisor.

Main thread. Sets what holds for the whole process (log, interpreter, event loop) and turns the end into an exit
status: 0 when the daemon ended as it was asked to, 1 when the run failed or the trainer hung, by SIGINT when a person
broke it off.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from esperd.config.settings import Settings
from esperd.weatherlight.daemon import Daemon
from esperd.weatherlight.log import configure_log
from esperd.weatherlight.run_directory import RunDirectory

SWITCH_INTERVAL_S = 0.001
"""How long one thread may hold the interpreter while another waits. Python's 5 ms make the slowest of a hundred calls
40 ms late beside a busy trainer, 1 ms makes it 10 (measured; design research, control plane, section 3)."""


def serve(settings: Settings, search_path: Path, *, new_run: bool = False, export_command: Sequence[str] = ()) -> int:
    """Run the daemon, which goes on with its directory's run, if there is one and no `new_run` is wanted.

    `search_path` is where the task's module is looked for first; `export_command` starts an export of this
    configuration, up to its options. Returns the exit status.

    Raises:
        EsperdError: the daemon could not be started (directory, journal, key ring, address, a run that does not fit).
    """
    log = configure_log(settings.log)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    directory = RunDirectory(Path(settings.run.directory))
    try:
        daemon = Daemon(settings, search_path, directory, log, new_run=new_run, export_command=export_command)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status, is_by_sigint = runner.run(daemon.run())
    finally:
        directory.release()
    if not daemon.has_trainer_left:
        # Interpreter shutdown with a thread inside torch may crash or hang; everything durable is closed already.
        sys.stderr.flush()
        os._exit(status)
    if is_by_sigint and status == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status
