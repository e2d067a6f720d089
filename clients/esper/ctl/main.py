"""`esperctl`: the operator's command line. Looks at a run and changes it, over Leyline.

Imports a command only when it is called; neither gRPC nor protobuf is loaded for `--help`.
"""

import click

from esper.address import TlsPaths, tls_options
from esper.ctl.connection import Where
from esper.lazy import Commands, LazyGroup

COMMANDS: Commands = {
    "status": ("esper.ctl.reads:status", "The run at a glance."),
    "watch": ("esper.ctl.watch:watch", "Follow the run on one line."),
    "seeds": ("esper.ctl.reads:seeds", "Every seed."),
    "seed": ("esper.ctl.seed:seed", "One seed, its gates and its story, and its kernel."),
    "sites": ("esper.ctl.reads:sites", "Where seeds may grow, what, and at which cost."),
    "blueprints": ("esper.ctl.kernels:blueprints", "What may grow, and the bounds of its parameters."),
    "kernels": ("esper.ctl.kernels:kernels", "Compiled blueprints: list, show, upload, verify, pin."),
    "optimizers": ("esper.ctl.reads:optimizers", "Every optimizer group."),
    "timelines": ("esper.ctl.timelines:timelines", "The branches of the run's history."),
    "log": ("esper.ctl.story:log", "What happened to the seeds, and who asked."),
    "telemetry": ("esper.ctl.telemetry:telemetry", "Numbers and events as they come."),
    "germinate": ("esper.ctl.seed_changes:germinate", "Grow a seed of a blueprint at a site."),
    "advance": ("esper.ctl.seed_changes:advance", "Take a seed to its next stage."),
    "set-alpha": ("esper.ctl.seed_changes:set_alpha", "Retarget the blend of a seed."),
    "fine-tune": ("esper.ctl.seed_changes:fine_tune", "Let a probationary seed and the host adapt to each other."),
    "cull": ("esper.ctl.seed_changes:cull", "Remove a seed."),
    "withdraw": ("esper.ctl.seed_changes:withdraw", "Take back a seed before it blends."),
    "fossilize": ("esper.ctl.seed_changes:fossilize", "Keep a seed for good."),
    "pause": ("esper.ctl.run_changes:pause", "Hold training at the next safe point."),
    "resume": ("esper.ctl.run_changes:resume", "Go on training."),
    "start": ("esper.ctl.run_changes:start", "Begin a new run when the current one is over."),
    "stop": ("esper.ctl.run_changes:stop", "End the run; the daemon stays up."),
    "checkpoint": ("esper.ctl.checkpoints:checkpoint", "Checkpoints: create, list, show, verify, prune."),
    "rollback": ("esper.ctl.rollback:rollback", "Go back to an earlier state of the run."),
    "export": ("esper.ctl.export:export", "The grown model as files that load without the daemon."),
    "lr": ("esper.ctl.run_changes:lr", "Change a learning rate, live."),
    "hyper": ("esper.ctl.run_changes:hyper", "Change hyper-parameters, live."),
    "breaker": ("esper.ctl.run_changes:breaker", "Circuit breakers: list, open, close."),
    "command": ("esper.ctl.command_log:command", "Commands: get, list, watch, cancel."),
    "audit": ("esper.ctl.audit:audit", "Who tried to change what: list, verify."),
    "emergency": ("esper.ctl.emergencies:emergency", "Emergencies: raise, clear, list."),
    "auth": ("esper.ctl.access:auth", "What a key may do."),
    "config": ("esper.ctl.config:config", "The daemon's configuration: show, reload."),
    "connections": ("esper.ctl.daemon:connections", "Who is connected to the daemon."),
    "log-level": ("esper.ctl.daemon:log_level", "Another level for the daemon's log."),
    "diag": ("esper.ctl.daemon:diag", "What a maintainer needs to see."),
    "drain": ("esper.ctl.daemon:drain", "Have the daemon leave in good order."),
    "info": ("esper.ctl.reads:info", "Who the daemon is, and its limits."),
}


ADDED_COMMANDS = "esper.ctl.commands"
"""The group of entry points through which the daemon's package adds commands that change its files."""


@click.group(
    cls=LazyGroup,
    lazy_commands=COMMANDS,
    entry_point_group=ADDED_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-a",
    "--address",
    envvar="ESPER_ADDRESS",
    metavar="ADDRESS",
    help="unix:PATH, tls:HOST:PORT or HOST:PORT of the daemon.",
)
@click.option("--key", envvar="ESPER_KEY", metavar="FILE", help="Key file that signs changes.")
@tls_options
@click.version_option(package_name="esperd", prog_name="esperctl")
@click.pass_context
def main(
    ctx: click.Context,
    address: str | None,
    key: str | None,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
) -> None:
    """Look at a run and change it.

    Without --address (ESPER_ADDRESS) the daemon is the one that the key file names, or the only leyline.sock under
    ./esperd-run, ./run, $XDG_RUNTIME_DIR/esperd and /run/esperd. Without --key (ESPER_KEY) changes are signed with the
    operator.key beside the socket. A tls: address needs the three --tls- files (ESPER_TLS_CA, ESPER_TLS_CERT,
    ESPER_TLS_KEY), unless the key file names them. Exit codes: 0 fine, 1 refused or failed, 2 bad usage, 3 no daemon
    answered.
    """
    ctx.obj = Where(address, key, TlsPaths(tls_ca, tls_cert, tls_key))


if __name__ == "__main__":
    main()
