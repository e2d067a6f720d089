"""`esperd init`: a task and a configuration that work as they are, to be changed into one's own.

Main thread. The two files are the ones in this folder's `example`, so that they are checked like all other code.
"""

from pathlib import Path

import click

from esperd.leyline.errors import EsperdError

EXAMPLE = Path(__file__).parent / "example"
FILES = ("my_task.py", "esperd.toml")


def write_example(directory: Path) -> None:
    """Write the example into `directory`, which is made if need be.

    Raises:
        EsperdError: FILE_EXISTS (nothing is written then) or CONFIG_UNREADABLE (the directory cannot be written).
    """
    for name in FILES:
        if (directory / name).exists():
            raise EsperdError("FILE_EXISTS", path=directory / name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (directory / name).write_text((EXAMPLE / name).read_text())
    except OSError as error:
        raise EsperdError("CONFIG_UNREADABLE", path=directory, detail=error.strerror or str(error)) from error
    file = directory / "esperd.toml"
    click.echo(f"wrote {directory / 'my_task.py'} and {file}; next:")
    click.echo(f"  esperd check {file}")
    keyring, key = directory / "run/keys.toml", directory / "tamiyo.toml"
    permissions = "--permission observe --permission command"
    click.echo(f"  esperctl keys new tamiyo {permissions} --keyring {keyring} --client-file {key}")
    click.echo(f"  esperd serve {file}")
    address = f"unix:{directory / 'run/leyline.sock'}"
    click.echo(f"  esper tamiyo run --policy heuristic --address {address} --key {key}")
