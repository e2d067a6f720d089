"""Setting a run up in the thread that will train it: torch, then the task, then the trainer.

Training thread only. Every failure is an error of the catalogue, so that the daemon can say what to do next.
"""

import time
from collections.abc import Callable
from pathlib import Path

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings
from esperd.kasmina.kernels.opening import Trust
from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.past import ReadPast
from esperd.tolaria.precision import configure_torch
from esperd.tolaria.task import describe, load_task, user_traceback
from esperd.tolaria.trainer import Trainer


def build_trainer(
    settings: Settings,
    bridge: Bridge,
    *,
    run_id: str,
    search_path: Path | None = None,
    clock: Callable[[], float] = time.time,
    store: CheckpointStore | None = None,
    read_past: ReadPast | None = None,
    keeps_unsettled: bool = False,
    kernel_trust: Trust | None = None,
) -> Trainer:
    """Configure torch, seed every generator, load the task and make its trainer.

    `search_path` is the folder of the configuration file; the last four are as in `Trainer`.
    Raises EsperdError of the device, task and site entries.
    """
    configure_torch(settings.run, settings.training)
    name = settings.run.task
    task = load_task(name, settings.run.task_options, search_path)
    try:
        return Trainer(
            task,
            settings,
            bridge,
            run_id=run_id,
            task_name=name,
            clock=clock,
            store=store,
            read_past=read_past,
            keeps_unsettled=keeps_unsettled,
            kernel_trust=kernel_trust,
        )
    except EsperdError:
        raise
    except (Exception, SystemExit) as error:  # finding the sites runs the user's model: what it raises is theirs
        raise EsperdError("TASK_FAILED", task=name, detail=describe(error), traceback=user_traceback(error)) from error
