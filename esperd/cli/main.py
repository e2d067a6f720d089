"""The `esperd` command: every verb of the daemon's own command line, and the one place where errors become text.

Main thread. Verbs import what they need when they run, so that `--help` answers at once and torch is loaded by the
verbs that compute only. Exit codes: 0 done; 1 refused or failed; 2 bad usage; 3 no daemon answered; 130 broken off.
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from esperd.leyline.errors import EsperdError

# Read by grpc when it is imported: its fork handlers can deadlock beside threads, and nothing here forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

EXIT_FAILED = 1
EXIT_BROKEN_OFF = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="esperd")
def esperd() -> None:
    """Train a PyTorch model as a service, and let it grow while it trains."""


@esperd.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Replace one setting of the file.")
@click.option("--new-run", is_flag=True, help="Begin another run, whatever became of the one in the run directory.")
def serve(file: Path, overrides: tuple[str, ...], new_run: bool) -> int:
    """Run the daemon with the configuration FILE until it is told to end.

    It goes on with the run that its directory holds, from the very step at which it was left.
    """
    # Until the daemon listens for it: a reload that comes while Python still loads must not end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from esperd.config.origin import load_configuration
    from esperd.weatherlight.serve import serve as run_daemon

    file = file.absolute()
    export_command = [sys.executable, "-P", "-m", "esperd.cli.main", "export", str(file)]
    export_command += [f"--set={override}" for override in overrides]
    return run_daemon(load_configuration(file, overrides), new_run=new_run, export_command=export_command)


@esperd.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Replace one setting of the file.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print the result.")
def check(file: Path, overrides: tuple[str, ...], output: str) -> None:
    """Import the task of FILE, run one step, and print shapes, sites and what growing would cost."""
    from esperd.cli.check import print_check

    print_check(file, overrides, as_json=output == "json")


@esperd.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Replace one setting of the file.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["safetensors", "torch-export"]),
    required=True,
    help="Weights with the source of the model, or one file for torch.export.load.",
)
@click.option("--checkpoint", "checkpoint_id", default="", metavar="ID", help="Which; the newest one if not given.")
@click.option("--run", "run_id", default="", metavar="ID", help="Of which run; any if not given.")
@click.option("--without-live-seeds", is_flag=True, help="Leave seeds out that are neither fossilized nor culled.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the files go, a new directory; exports/RUN/CHECKPOINT-FORMAT of the run directory if not given.",
)
@click.option("--device", default="cpu", show_default=True, help="Where the exported model is to compute.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print the result.")
@click.option("--answer", type=click.Path(path_type=Path), hidden=True, help="Write what came of it into this file.")
def export(
    file: Path,
    overrides: tuple[str, ...],
    format_name: str,
    checkpoint_id: str,
    run_id: str,
    without_live_seeds: bool,
    directory: Path | None,
    device: str,
    output: str,
    answer: Path | None,
) -> None:
    """Write the model of a checkpoint, with what has grown in it, as files that load without esperd."""
    from esperd.cli.export import Wish, run_export

    wish = Wish(file, overrides, format_name, checkpoint_id, run_id, without_live_seeds, directory, device)
    run_export(wish, as_json=output == "json", answer=answer)


@esperd.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def init(directory: Path) -> None:
    """Write a small task and its configuration into DIRECTORY."""
    from esperd.cli.init import write_example

    write_example(directory)


@esperd.command()
@click.option("--task", type=click.Choice(["digits", "bytes"]), default="digits", help="What is trained.")
@click.option("--random-seeds", type=click.IntRange(1, 100), default=3, help="Runs of every arm.")
@click.option("--kernels", is_flag=True, help="One run of the bytes task, whose seeds a compiler beside it compiles.")
@click.option(
    "--steps", type=click.IntRange(200, 1_000_000), help="Steps of a run; the task's own number if not given."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of a table.")
@click.option("--keep", is_flag=True, help="Leave the runs' files (journal, log, keys) where they are.")
def demo(task: str, random_seeds: int, kernels: bool, steps: int | None, as_json: bool, keep: bool) -> int:
    """Train a model, let a policy process grow it over gRPC, and compare it with what could beat it."""
    from esperd.cli.demo.command import run_demo, run_kernel_demo

    if kernels:
        return run_kernel_demo(steps, as_json=as_json, keep=keep)
    return run_demo(task, random_seeds, steps, as_json=as_json, keep=keep)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; every error becomes a text on stderr and an exit code here."""
    try:
        status = esperd.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_BROKEN_OFF
    except EsperdError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.metadata.get("traceback"):
            click.echo(error.metadata["traceback"], err=True)
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the last line of the process: what nobody foresaw is told, not thrown
        click.echo(_unexpected(error), err=True)
        return EXIT_FAILED
    return status if isinstance(status, int) else 0


def _unexpected(error: Exception) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="esperd-", suffix=".traceback", delete=False) as file:
        traceback.print_exception(error, file=file)
    detail = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return f"error: {EsperdError('INTERNAL', detail=detail).message}\nThe traceback is in {file.name}"


if __name__ == "__main__":
    main()
