"""A click group whose commands are imported only when one is called, so that `--help` stays quick.

The names and their one-line helps are data; a test loads every one of them. Other installed packages may add commands
through a group of entry points; those are imported for `--help` too, so they have to be light.
"""

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

_SHORT_CHARS = 60
"""Most that the list says of one command."""

Commands = Mapping[str, tuple[str, str]]
"""Command name to (`module:attribute`, one-line help)."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and help, and loads one when it is asked for."""

    def __init__(self, *args: Any, lazy_commands: Commands, entry_point_group: str = "", **kwargs: Any) -> None:
        """`entry_point_group` names the entry points of added commands; empty means that there are none."""
        super().__init__(*args, **kwargs)
        self.lazy_commands = lazy_commands
        self._entry_point_group = entry_point_group

    @cached_property
    def added_commands(self) -> Mapping[str, EntryPoint]:
        """What other packages add, by name; a name of the table stays the table's."""
        if not self._entry_point_group:
            return {}
        found = entry_points(group=self._entry_point_group)
        return {entry.name: entry for entry in found if entry.name not in self.lazy_commands}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table, then those that are added."""
        return [*self.lazy_commands, *sorted(self.added_commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Import one command."""
        command: click.Command
        if cmd_name not in self.lazy_commands:
            if cmd_name not in self.added_commands:
                return None
            command = self.added_commands[cmd_name].load()
            return command
        module, _, attribute = self.lazy_commands[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """The list of commands for `--help`, without importing any of the table."""
        told = [(name, text) for name, (_, text) in self.lazy_commands.items()]
        added = [
            (name, entry.load().get_short_help_str(_SHORT_CHARS)) for name, entry in sorted(self.added_commands.items())
        ]
        with formatter.section("Commands"):
            formatter.write_dl(told + added)
