"""The training thread: loads the task, builds the trainer and runs it; a failure becomes a phase, never a crash.

The only place of the supervisor that imports torch, and it does so inside the thread, so that the control plane
answers while torch is still loading. Whatever goes wrong is put into the snapshot and the log; the daemon stays up.
"""

import threading
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from structlog.stdlib import BoundLogger

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import NoticeEvent, RunView, Snapshot
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.past import ReadPast
from esperd.oona.records import RunFinished
from esperd.urza.trust import KernelTrust

if TYPE_CHECKING:
    from esperd.tolaria.trainer import Trainer

THREAD_NAME = "esperd-trainer"


def starting_snapshot(settings: Settings, run_id: str, unix_s: float, revision: int = 1) -> Snapshot:
    """What is seen before the trainer exists."""
    return Snapshot(
        revision=revision,
        run=RunView(
            run_id=run_id,
            task=settings.run.task,
            phase=TrainerPhase.STARTING,
            global_step=0,
            epoch=0,
            num_steps_total=settings.run.num_steps,
            train_loss=float("nan"),
            val_loss=float("nan"),
            started_unix_s=unix_s,
            stall="loading",
        ),
    )


def finished_snapshot(settings: Settings, finished: RunFinished, unix_s: float, revision: int) -> Snapshot:
    """What is seen of a run that an earlier start has finished."""
    begun = starting_snapshot(settings, finished.run_id, unix_s, revision)
    run = replace(
        begun.run,
        phase=TrainerPhase.FINISHED,
        global_step=finished.global_step,
        epoch=finished.epoch,
        train_loss=finished.train_loss,
        val_loss=finished.val_loss,
        metrics=finished.metrics,
        timeline=finished.timeline,
        stall="",
    )
    return replace(begun, run=run)


@dataclass(frozen=True, slots=True)
class Keeping:
    """What outlives a start of the daemon."""

    store: CheckpointStore | None = None
    """The run's checkpoints; None keeps states in memory only."""
    read_past: ReadPast | None = None
    """Reads what earlier starts did; None when this one begins the run."""
    keeps_unsettled: bool = False
    """Whether commands that wait when the daemon leaves are durable, so that its next start carries them out."""
    kernel_trust: KernelTrust | None = None
    """Who vouches for kernels; None means that none are opened."""


def start_training_thread(
    settings: Settings, bridge: Bridge, run_id: str, search_path: Path, log: BoundLogger, keeping: Keeping
) -> threading.Thread:
    """Start the thread. It is a daemon thread: at shutdown the supervisor waits for it, but not for ever."""
    thread = threading.Thread(
        target=_train, args=(settings, bridge, run_id, search_path, log, keeping), name=THREAD_NAME, daemon=True
    )
    thread.start()
    return thread


def _train(
    settings: Settings, bridge: Bridge, run_id: str, search_path: Path, log: BoundLogger, keeping: Keeping
) -> None:
    try:
        trainer = _build_trainer(settings, bridge, run_id, search_path, keeping)
    except EsperdError as error:
        _give_up(bridge, error.message, error.metadata.get("traceback", ""), log)
        return
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the task's own modules run here; the daemon must outlive them
        _give_up(bridge, f"{type(error).__name__}: {error}", traceback.format_exc(), log)
        return
    log.info("training begins", run_id=run_id, task=settings.run.task, resumes=keeping.read_past is not None)
    trainer.run()
    _log_end(bridge.snapshot().run, log)


def _build_trainer(settings: Settings, bridge: Bridge, run_id: str, search_path: Path, keeping: Keeping) -> "Trainer":
    try:
        import torch  # noqa: F401 - asked for by itself, so that its absence is told apart from a broken task
    except ModuleNotFoundError as error:
        raise EsperdError("TORCH_MISSING") from error
    from esperd.tolaria.start import build_trainer

    return build_trainer(
        settings,
        bridge,
        run_id=run_id,
        search_path=search_path,
        store=keeping.store,
        read_past=keeping.read_past,
        keeps_unsettled=keeping.keeps_unsettled,
        kernel_trust=keeping.kernel_trust,
    )


def _give_up(bridge: Bridge, failure: str, trace: str, log: BoundLogger) -> None:
    """There is no trainer: show why, and refuse commands."""
    before = bridge.snapshot()
    revision = before.revision + 1
    bridge.record(NoticeEvent("run.failed", failure, "error", 0, revision, time.time()))
    run = replace(before.run, phase=TrainerPhase.FAILED, failure=failure, stall="")
    bridge.publish(replace(before, revision=revision, run=run))
    bridge.close(TrainerPhase.FAILED.name)
    log.error("the run failed", failure=failure, traceback=trace)


def _log_end(run: RunView, log: BoundLogger) -> None:
    facts = {"step": run.global_step, "val_loss": run.val_loss, **run.metrics}
    if run.phase is TrainerPhase.FAILED:
        log.error("the run failed", failure=run.failure, **facts)
    elif run.phase is TrainerPhase.FINISHED:
        log.info("the run ended", phase=run.phase.name, **facts)
    else:
        log.info("training stopped; the next start goes on with the run", phase=run.phase.name, **facts)
