"""Help is quick and complete."""

import subprocess
import sys

import click
import pytest
from esper.cli import COMMANDS as ESPER
from esper.cli import main as esper
from esper.ctl.main import COMMANDS, main

CODE = """
import sys
from {module} import main
try:
    main(["--help"], prog_name="tool")
except SystemExit as left:
    assert left.code == 0
heavy = {{"grpc", "torch", "rich", "numpy", "yaml", "google.protobuf", "structlog"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("module", ["esper.ctl.main", "esper.cli"])
def test_help_imports_nothing_heavy(module: str) -> None:
    """`--help` loads neither gRPC nor protobuf, torch or rich."""
    subprocess.run([sys.executable, "-c", CODE.format(module=module)], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(("group", "table"), [(main, COMMANDS), (esper, ESPER)])
def test_table_of_commands_is_true(group: click.Group, table: dict[str, tuple[str, str]]) -> None:
    """Every name in the table loads a command of that name; its help in the list is one short sentence."""
    context = click.Context(group)
    for name, (_, text) in table.items():
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert text.endswith(".")
        assert len(text) <= 60


def walk(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    names = command.list_commands(context)
    return [leaf for name in names for leaf in walk(command.get_command(context, name), (*path, name))]  # type: ignore[arg-type]


def test_every_command_has_help_for_each_of_its_options() -> None:
    """No option without a word about it."""
    for group in (main, esper):
        for path in walk(group, ()):
            command: click.Command = group
            for name in path:
                command = command.get_command(click.Context(command), name)  # type: ignore[attr-defined]
            assert command.help, path
            for parameter in command.params:
                assert not isinstance(parameter, click.Option) or parameter.help, (path, parameter.name)
