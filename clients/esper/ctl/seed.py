"""`esperctl seed`: one seed, and by which kernel it computes."""

import click

from esper.ctl import tables
from esper.ctl.connection import Where
from esper.ctl.output import output_option, show
from esper.ctl.submission import Terms, change_options, settle
from esper.failures import run_reporting


class SeedGroup(click.Group):
    """`esperctl seed 3` shows seed 3; `esperctl seed kernel 3` is a command about it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what is no command of this group as the seed to show."""
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=SeedGroup, subcommand_metavar="SEED | COMMAND [ARGS]...")
def seed() -> None:
    """One seed, its gates and its story; or a command about it."""


@seed.command("show", hidden=True)
@click.argument("seed_id", metavar="SEED")
@output_option
@click.pass_obj
def show_one(where: Where, seed_id: str, output: str) -> None:
    """One seed, its gates and its story."""

    def look() -> None:
        with where.client() as client:
            answer = client.seed(seed_id)
        show(answer, output, lambda: tables.seed(answer))

    run_reporting(look)


@seed.command("kernel")
@click.argument("seed_id", metavar="SEED")
@click.argument("artifact_id", metavar="[KERNEL]", required=False, default="")
@click.option("--eager", is_flag=True, help="By its eager module; the daemon then swaps no kernel in by itself.")
@change_options
@click.pass_obj
def kernel(where: Where, seed_id: str, artifact_id: str, eager: bool, terms: Terms) -> None:
    """Have SEED compute by KERNEL (its id, or the first characters of it) from the next safe point on.

    Parameters and the optimizer's state stay as they are, bit for bit.
    """
    if bool(artifact_id) == eager:
        raise click.UsageError("name a kernel, or say --eager")

    def send() -> None:
        from esper.client.kernel_plans import swap_kernel
        from esper.ctl.kernels import full_id

        with where.client() as client:
            wanted = full_id(client, artifact_id) if artifact_id else ""
            settle(client, terms, client.submit(terms.apply(swap_kernel(seed_id, wanted, "", ""))))

    run_reporting(send)
