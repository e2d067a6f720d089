"""`esper`: the command line of everything that works for a run from outside.

Imports a part only when it is called.
"""

import click

from esper.lazy import Commands, LazyGroup

COMMANDS: Commands = {
    "tamiyo": ("esper.tamiyo.command:tamiyo", "Policies: decide when and what a run grows."),
    "tezzeret": ("esper.tezzeret.command:tezzeret", "Kernels: compile blueprints ahead of time."),
}


@click.group(cls=LazyGroup, lazy_commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="esperd", prog_name="esper")
def main() -> None:
    """Policies and other services that work for an esperd run from outside."""


if __name__ == "__main__":
    main()
