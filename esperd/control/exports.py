"""Exports that are asked for from outside: what is allowed, and the words of the command line for it.

Event loop only. The work is done by a process (`export_process`); the checkpoint is only looked up here.
"""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from esper.leyline.v1 import checkpoint_service_pb2 as pb

from esperd.bridge.bridge import TrainerPort
from esperd.control.call import Call, Route, Shape
from esperd.control.errors import InvalidRequest, Violation
from esperd.control.export_process import ExportProcess
from esperd.control.validation import parse
from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.store import CheckpointStore

_METHOD = "/esper.leyline.v1.CheckpointService/ExportCheckpoint"
_FORMATS: Mapping[int, str] = {
    pb.EXPORT_FORMAT_SAFETENSORS: "safetensors",
    pb.EXPORT_FORMAT_TORCH_EXPORT: "torch-export",
}


class ExportDesk:
    """Serves CheckpointService.ExportCheckpoint."""

    def __init__(
        self, *, port: TrainerPort, store: CheckpointStore | None, process: ExportProcess, run_directory: Path
    ) -> None:
        """`store` is None for a daemon that keeps no checkpoints; exports go below `run_directory` only."""
        self._port = port
        self._store = store
        self._process = process
        self._run_directory = run_directory

    def routes(self) -> Iterable[Route]:
        """What is served here."""
        yield Route(_METHOD, Shape.UNARY, pb.ExportCheckpointRequest, self.export_checkpoint)

    async def close(self) -> None:
        """End the export that runs, if one does, and take no more."""
        await self._process.close()

    async def export_checkpoint(self, _: Call, data: bytes) -> pb.ExportCheckpointResponse:
        """Have a checkpoint exported and say what was written."""
        asked = parse(pb.ExportCheckpointPayload, data)
        run_id = asked.run_id or self._port.snapshot().run.run_id
        if self._store is None:
            raise EsperdError("CHECKPOINT_UNKNOWN", checkpoint_id=asked.checkpoint_id)
        await asyncio.to_thread(partial(self._look, self._store, asked, run_id))
        answer = await self._process.run(asked.checkpoint_id, _options(asked, run_id))
        return pb.ExportCheckpointResponse(
            directory=answer.directory,
            files=[pb.CheckpointFile(name=f.name, num_bytes=f.num_bytes, sha256=f.sha256) for f in answer.files],
            how_to_load=answer.how_to_load,
        )

    def _look(self, store: CheckpointStore, asked: pb.ExportCheckpointPayload, run_id: str) -> None:
        """In a thread: that the checkpoint is there, and that the directory is one in which a caller may write.

        A key for the daemon is no key for its machine, and what looks like a checkpoint must be one.
        """
        if asked.directory:
            allowed, asked_for = self._run_directory.resolve(), Path(asked.directory).resolve()
            is_apart = not asked_for.is_relative_to(store.directory.resolve())
            is_below = asked_for != allowed and asked_for.is_relative_to(allowed)
            if not (is_below and is_apart):
                rule = f"must be below {allowed}, and not among the checkpoints"
                raise InvalidRequest([Violation("directory", rule)], "REQUEST_INVALID")
        store.get(asked.checkpoint_id, run_id)


def _options(asked: pb.ExportCheckpointPayload, run_id: str) -> list[str]:
    """Every value in one word with its option, so that none can be taken for another option."""
    options = [f"--format={_FORMATS[asked.format]}", f"--checkpoint={asked.checkpoint_id}", f"--run={run_id}"]
    if asked.directory:
        options.append(f"--directory={asked.directory}")
    if asked.without_live_seeds:
        options.append("--without-live-seeds")
    return options
