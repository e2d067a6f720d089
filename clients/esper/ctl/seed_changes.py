"""Commands that change a seed: germinate, advance, set-alpha, fine-tune, cull, withdraw, fossilize."""

from collections.abc import Callable
from typing import Any

import click

from esper import numbers
from esper.ctl.connection import Where
from esper.ctl.submission import Terms, change_options, submit
from esper.leyline.v1 import command_pb2, vocabulary_pb2


def _words(enum: Any, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in enum.keys()[1:]]


BLENDS = _words(vocabulary_pb2.BlendMode, "BLEND_MODE_")
MODES = _words(vocabulary_pb2.TrainingMode, "TRAINING_MODE_")
ISOLATIONS = _words(vocabulary_pb2.Isolation, "ISOLATION_")
CURVES = _words(vocabulary_pb2.AlphaCurve, "ALPHA_CURVE_")
REACHED_BY = {
    "TRAINING": vocabulary_pb2.SEED_OPERATION_START_TRAINING,
    "BLENDING": vocabulary_pb2.SEED_OPERATION_START_GRAFTING,
    "SHADOWING": vocabulary_pb2.SEED_OPERATION_STABILIZE,
    "PROBATIONARY": vocabulary_pb2.SEED_OPERATION_EVALUATE,
    "FOSSILIZED": vocabulary_pb2.SEED_OPERATION_FOSSILIZE,
}
"""Stage to the operation that leads there."""


def key_values(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """Read `NAME=NUMBER` arguments.

    Raises:
        click.BadParameter: one is not of that form, or a name comes twice.
    """
    found: dict[str, float] = {}
    for text in values:
        name, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER", param=parameter)
        if name in found:
            raise click.BadParameter(f"{name} is given twice", param=parameter)
        found[name] = number
    return found


def seed_operation(seed_id: str, operation: Any) -> command_pb2.AdaptationCommand:
    """A command about one seed."""
    return command_pb2.AdaptationCommand(
        target_seed_id=seed_id, seed_operation=command_pb2.CommandSeedOperation(operation=operation)
    )


def schedule(steps: int | None, curve: str | None, target: float | None) -> command_pb2.AlphaSchedule | None:
    """A ramp; None when nothing was said about it.

    Raises:
        click.UsageError: a ramp was begun but has no length.
    """
    if steps is None and curve is None and target is None:
        return None
    if steps is None:
        raise click.UsageError("a blend ramp needs --alpha-steps")
    return command_pb2.AlphaSchedule(
        num_steps=steps, curve=f"ALPHA_CURVE_{curve or 'UNSPECIFIED'}", target=1.0 if target is None else target
    )


@click.command()
@click.argument("site")
@click.argument("blueprint_id", metavar="BLUEPRINT")
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=NUMBER",
    callback=key_values,
    help="A parameter of the blueprint; may be given several times.",
)
@click.option(
    "--until",
    type=click.Choice(list(REACHED_BY), case_sensitive=False),
    help="The daemon advances the seed as its gates pass, up to this stage.",
)
@click.option("--blend-mode", type=click.Choice(BLENDS, case_sensitive=False), help="How it blends.")
@click.option("--training-mode", type=click.Choice(MODES, case_sensitive=False), help="What it learns from.")
@click.option("--isolation", type=click.Choice(ISOLATIONS, case_sensitive=False), help="How far the host may feel it.")
@click.option("--alpha-steps", type=numbers.POSITIVE32, help="Length of the blend ramp.")
@click.option("--alpha-curve", type=click.Choice(CURVES, case_sensitive=False), help="Shape of the blend ramp.")
@click.option("--alpha-target", type=numbers.SHARE, help="Where the blend ramp ends.")
@change_options
@click.pass_obj
def germinate(
    where: Where,
    site: str,
    blueprint_id: str,
    parameters: dict[str, float],
    until: str | None,
    blend_mode: str | None,
    training_mode: str | None,
    isolation: str | None,
    alpha_steps: int | None,
    alpha_curve: str | None,
    alpha_target: float | None,
    terms: Terms,
) -> None:
    """Grow a seed of BLUEPRINT at SITE.

    Without --until it waits in GERMINATED for `esperctl advance`. What may grow where: `esperctl sites`.
    """
    asked = command_pb2.CommandSeedOperation(
        operation=vocabulary_pb2.SEED_OPERATION_GERMINATE,
        site=site,
        blueprint_id=blueprint_id,
        parameters=parameters,
        auto_advance=until is not None,
        auto_advance_until=f"SEED_STAGE_{until or 'UNKNOWN'}",
        blend_mode=f"BLEND_MODE_{blend_mode or 'UNSPECIFIED'}",
        training_mode=f"TRAINING_MODE_{training_mode or 'UNSPECIFIED'}",
        isolation=f"ISOLATION_{isolation or 'UNSPECIFIED'}",
        alpha=schedule(alpha_steps, alpha_curve, alpha_target),
    )
    submit(where, terms, command_pb2.AdaptationCommand(seed_operation=asked))


@click.command()
@click.argument("seed_id", metavar="SEED")
@click.option(
    "--to",
    "stage",
    type=click.Choice(list(REACHED_BY), case_sensitive=False),
    help="The stage that must be next; without it the next one, whichever that is.",
)
@click.option("--auto-advance", is_flag=True, help="The daemon goes on advancing it as its gates pass.")
@click.option("--alpha-steps", type=numbers.POSITIVE32, help="Length of the blend ramp.")
@click.option("--alpha-curve", type=click.Choice(CURVES, case_sensitive=False), help="Shape of the blend ramp.")
@click.option("--alpha-target", type=numbers.SHARE, help="Where the blend ramp ends.")
@change_options
@click.pass_obj
def advance(
    where: Where,
    seed_id: str,
    stage: str | None,
    auto_advance: bool,
    alpha_steps: int | None,
    alpha_curve: str | None,
    alpha_target: float | None,
    terms: Terms,
) -> None:
    """Take SEED to its next stage, if its gate lets it."""
    operation = REACHED_BY[stage] if stage else vocabulary_pb2.SEED_OPERATION_ADVANCE
    command = seed_operation(seed_id, operation)
    command.seed_operation.auto_advance = auto_advance
    ramp = schedule(alpha_steps, alpha_curve, alpha_target)
    if ramp is not None:
        command.seed_operation.alpha.CopyFrom(ramp)
    submit(where, terms, command)


@click.command("set-alpha")
@click.argument("seed_id", metavar="SEED")
@click.argument("target", type=numbers.SHARE)
@click.option("--steps", type=numbers.POSITIVE32, default=1, show_default=True, help="Length of the ramp.")
@click.option("--curve", type=click.Choice(CURVES, case_sensitive=False), help="Shape of the ramp.")
@change_options
@click.pass_obj
def set_alpha(where: Where, seed_id: str, target: float, steps: int, curve: str | None, terms: Terms) -> None:
    """Retarget the blend of SEED to TARGET (0 to 1); its alpha must hold."""
    command = seed_operation(seed_id, vocabulary_pb2.SEED_OPERATION_SET_ALPHA)
    ramp = schedule(steps, curve, target)
    if ramp is not None:
        command.seed_operation.alpha.CopyFrom(ramp)
    submit(where, terms, command)


def _plain(name: str, operation: Any, text: str) -> Callable[..., Any]:
    """A command that only names a seed."""

    @click.command(name, help=text)
    @click.argument("seed_id", metavar="SEED")
    @change_options
    @click.pass_obj
    def ask(where: Where, seed_id: str, terms: Terms) -> None:
        submit(where, terms, seed_operation(seed_id, operation))

    return ask


fine_tune = _plain(
    "fine-tune",
    vocabulary_pb2.SEED_OPERATION_FINE_TUNE,
    "Let a probationary SEED and the host adapt to each other.",
)
cull = _plain("cull", vocabulary_pb2.SEED_OPERATION_CULL, "Remove SEED; its site is then embargoed for a while.")
withdraw = _plain(
    "withdraw",
    vocabulary_pb2.SEED_OPERATION_CANCEL,
    "Take back SEED before it blends; its site is not embargoed.",
)
fossilize = _plain("fossilize", vocabulary_pb2.SEED_OPERATION_FOSSILIZE, "Keep SEED for good, if its gate lets it.")
