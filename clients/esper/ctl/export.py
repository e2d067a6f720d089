"""`esperctl export`: have the daemon write the grown model as files that load without it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from esper.ctl.checkpoints import made_by, raise_unless_written
from esper.ctl.connection import Where
from esper.ctl.options import timeout_option
from esper.ctl.output import output_option, show, size
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import checkpoint_service_pb2, vocabulary_pb2

if TYPE_CHECKING:
    from esper.client.sync import Client

_OVER = (vocabulary_pb2.TRAINER_PHASE_FINISHED, vocabulary_pb2.TRAINER_PHASE_FAILED)
FORMATS = {
    "safetensors": checkpoint_service_pb2.EXPORT_FORMAT_SAFETENSORS,
    "torch-export": checkpoint_service_pb2.EXPORT_FORMAT_TORCH_EXPORT,
}


@click.command()
@click.option("--format", "format_name", type=click.Choice(list(FORMATS)), required=True,
              help="Weights with the source of the model, or one file for torch.export.load.")  # fmt: skip
@click.option("--checkpoint", "checkpoint_id", default="", metavar="CHECKPOINT",
              help="Which; if not given, one is made now, or a finished run's last is taken.")  # fmt: skip
@click.option("--run", "run_id", default="", metavar="RUN", help="The run of CHECKPOINT, if not the current one.")
@click.option("--without-live-seeds", is_flag=True, help="Leave out seeds that are neither fossilized nor culled.")
@click.option("--directory", type=click.Path(path_type=Path), metavar="DIR",
              help="Where the files go on the daemon's machine, a new directory below its run directory; if not given, "
                   "exports/RUN/CHECKPOINT-FORMAT there.")  # fmt: skip
@click.option("--reason", default="", help="Why, for the audit log.")
@timeout_option(600.0, "How long it may take.")
@output_option
@click.pass_obj
def export(
    where: Where,
    format_name: str,
    checkpoint_id: str,
    run_id: str,
    without_live_seeds: bool,
    directory: Path | None,
    reason: str,
    timeout_s: float,
    output: str,
) -> None:
    """Write the grown model as files that load without the daemon; training goes on meanwhile."""
    if run_id and not checkpoint_id:
        raise click.UsageError("--run says whose checkpoint it is; name that with --checkpoint")

    def send() -> None:
        with where.client() as client:
            answer = client.export_checkpoint(
                checkpoint_id or _newest(client, reason, timeout_s),
                FORMATS[format_name],
                run_id=run_id,
                without_live_seeds=without_live_seeds,
                directory=str(directory.absolute()) if directory is not None else "",
                reason=reason,
                timeout_s=timeout_s,
            )
        show(answer, output, lambda: _text(answer))

    run_reporting(send)


def _newest(client: "Client", reason: str, timeout_s: float) -> str:
    """A checkpoint of now; of a run that is over, its last one."""
    if client.run().run.phase in _OVER:
        found = next(iter(client.checkpoints(page_size=1).checkpoints), None)
    else:
        done = client.checkpoint(note="for an export", reason=reason, timeout_s=timeout_s)
        raise_unless_written(done, no_wait=False, timeout_s=timeout_s)
        found = made_by(client, done)
    if found is None:
        raise Failed("there is no checkpoint to export. List them with esperctl checkpoint list.")
    return found.checkpoint_id


def _text(answer: checkpoint_service_pb2.ExportCheckpointResponse) -> str:
    width = max((len(file.name) for file in answer.files), default=0)
    lines = [f"  {file.name:<{width}}  {size(file.num_bytes):>9}  sha256 {file.sha256}" for file in answer.files]
    return "\n".join([answer.directory, *lines, f"Load it there with: {answer.how_to_load}"])
