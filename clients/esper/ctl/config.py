"""`esperctl config`: the configuration in force, and another one without a restart."""

from collections.abc import Sequence

import click

from esper.ctl.connection import Where
from esper.ctl.options import reason_option
from esper.ctl.output import columns, output_option, show
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import admin_service_pb2 as pb


@click.group()
def config() -> None:
    """The configuration: show it, reload it."""


@config.command("show")
@click.argument("names", nargs=-1, metavar="[SECTION | SECTION.KEY]...")
@click.option("--origin", is_flag=True, help="Where each value comes from, and whether a reload can change it.")
@output_option
@click.pass_obj
def config_show(where: Where, names: tuple[str, ...], origin: bool, output: str) -> None:
    """The settings in force, or some of them."""

    def look() -> None:
        with where.client() as client:
            answer = client.config()
        chosen = [one for one in answer.settings if not names or _is_among(one.name, names)]
        if not chosen:
            raise Failed(f"no setting is called {' or '.join(names)}; esperctl config show lists all of them")
        del answer.settings[:]
        answer.settings.extend(chosen)
        show(answer, output, lambda: _settings(answer, with_origin=origin))

    run_reporting(look)


@config.command("reload")
@reason_option
@output_option
@click.pass_obj
def config_reload(where: Where, reason: str, output: str) -> None:
    """Have the daemon read its configuration, keys and certificates again: all of it is applied, or nothing."""

    def send() -> None:
        with where.client() as client:
            answer = client.reload_config(reason)
        if answer.rejected:
            raise Failed("nothing was applied:\n  " + "\n  ".join(answer.rejected))
        show(answer, output, lambda: _reloaded(answer))

    run_reporting(send)


def _is_among(name: str, wanted: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in wanted)


def _settings(answer: pb.GetConfigResponse, *, with_origin: bool) -> str:
    if not with_origin:
        return "\n".join(f"{one.name} = {one.value}" for one in answer.settings)
    rows = [(one.name, one.value, _origin(one, answer.path), one.reloadable) for one in answer.settings]
    return columns(("SETTING", "VALUE", "ORIGIN", "RELOADABLE"), rows, "")


def _origin(setting: pb.Setting, path: str) -> str:
    return path if setting.origin == "file" else setting.origin


def _reloaded(answer: pb.ReloadConfigResponse) -> str:
    lines = [*_changes("applied:", answer.applied), *_changes("takes a restart:", answer.restart_required)]
    return "\n".join(lines or ["no setting has changed; keys and certificates were read again"])


def _changes(title: str, changes: Sequence[pb.SettingChange]) -> list[str]:
    return [title, *(f"  {one.name}: {one.old_value} -> {one.new_value}" for one in changes)] if changes else []
