"""`esper tezzeret`: compiles blueprints into kernels.

Imports a command only when it is called: neither torch nor gRPC is loaded for `--help`.
"""

import click

from esper.lazy import Commands, LazyGroup

COMMANDS: Commands = {
    "compile": ("esper.tezzeret.by_hand:compile_by_hand", "Compile one kernel into a directory."),
    "serve": ("esper.tezzeret.serve:serve", "Compile what a daemon wants, for as long as it runs."),
}
"""Each in a file of its own."""


@click.group(cls=LazyGroup, lazy_commands=COMMANDS)
def tezzeret() -> None:
    """Kernels: compile blueprints ahead of time, and bring them to a run."""
