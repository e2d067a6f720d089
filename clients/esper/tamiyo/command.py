"""`esper tamiyo`: runs a policy against a daemon.

The command line of the policy process: options in, one line per decision out. The logs go to stderr.
"""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from esper import numbers
from esper.address import POLICY_KEYS, Target, TlsPaths, find_target, tls_options
from esper.at_work import session_options, set_up_log, state_directory
from esper.failures import run_reporting
from esper.tamiyo.agent import Agent, Answer
from esper.tamiyo.decision import Policy, PolicyCommand
from esper.tamiyo.policies import UnknownPolicyError, make_policy
from esper.tamiyo.risk import RiskEngine, RiskSettings
from esper.tamiyo.runner import Runner, RunnerSettings
from esper.tamiyo.session import Greet


@click.group()
def tamiyo() -> None:
    """Policies: decide when and what a run grows."""


@tamiyo.command("run")
@click.option("--policy", "policy_name", default="heuristic", show_default=True, metavar="NAME",
              help="heuristic, random, an installed policy, or module:Class.")  # fmt: skip
@click.option("-a", "--address", envvar="ESPER_ADDRESS", help="unix:PATH, tls:HOST:PORT or HOST:PORT of the daemon.")
@click.option("--key", envvar="ESPER_KEY", type=click.Path(dir_okay=False), help="Key file that signs decisions.")
@tls_options
@click.option("--budget", type=click.Choice(["flops", "steps"]), default="flops", show_default=True,
              help="What is scarce: flops waits for a plateau, steps grows early.")  # fmt: skip
@click.option("--random-seed", "--seed", "random_seed", type=int, default=0, show_default=True,
              help="Seed of the policy's own randomness.")  # fmt: skip
@click.option("--packet-every", type=numbers.COUNT32, default=25, show_default=True, metavar="STEPS",
              help="Ask for a packet so often besides each epoch's end; 0 leaves it to the daemon.")  # fmt: skip
@click.option("--candidates", type=click.IntRange(1, 8), default=3, show_default=True,
              help="Seeds that compete at one site.")  # fmt: skip
@click.option("--sites", "where", type=click.Choice(["parallel", "one-by-one"]), default="parallel", show_default=True,
              help="Grow at several sites in one round, or at one.")  # fmt: skip
@click.option("--dwell", type=numbers.COUNT32, default=0, metavar="STEPS",
              help="Training of a candidate before it is judged; 0 chooses by site: 150, sequences 50.")  # fmt: skip
@click.option("--hold-out", type=numbers.SHARE, default=0.0, show_default=True,
              help="Chance that a wanted round is turned into waiting, as a control.")  # fmt: skip
@click.option("--advise", is_flag=True, help="Decisions are recorded, not applied; takes no lease.")
@click.option("--on-risk-pause", type=click.Choice(["growth", "run"]), default="growth", show_default=True,
              help="What a PAUSE of the risk engine holds: growth, or training until somebody resumes it.")  # fmt: skip
@click.option("--state-dir", type=click.Path(file_okay=False, path_type=Path), envvar="ESPER_STATE_DIR",
              help="Where undelivered field reports are kept.")  # fmt: skip
@session_options
@click.option("-o", "--output", type=click.Choice(["text", "json", "none"]), default="text", show_default=True,
              help="Decisions on stdout: those that do something, all as JSON lines, or none.")  # fmt: skip
def run(
    policy_name: str,
    address: str | None,
    key: str | None,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    budget: str,
    random_seed: int,
    packet_every: int,
    candidates: int,
    where: str,
    dwell: int,
    hold_out: float,
    advise: bool,
    on_risk_pause: str,
    state_dir: Path | None,
    connect_timeout: float,
    reconnect_timeout: float,
    log_level: str,
    output: str,
) -> None:
    """Steer a run until it is over.

    Takes the lease of the run, decides on each state packet before its deadline, comes back when the daemon restarts,
    and leaves with exit code 0 when the run has finished or a SIGTERM asks for it.
    """
    set_up_log(log_level)
    rng = random.Random(random_seed)
    try:
        policy = make_policy(
            policy_name,
            rng,
            budget="steps" if budget == "steps" else "flops",
            num_candidates=candidates,
            parallel_sites=where == "parallel",
            dwell_steps=dwell,
            hold_out=hold_out,
        )
    except UnknownPolicyError as error:
        raise click.BadParameter(str(error), param_hint="--policy") from error
    risk = RiskSettings(on_pause="run" if on_risk_pause == "run" else "growth")
    settings = RunnerSettings(advise, packet_every, connect_timeout, reconnect_timeout)
    directory = state_dir or state_directory("tamiyo")

    def work() -> None:
        target = find_target(address, key, POLICY_KEYS, TlsPaths(tls_ca, tls_cert, tls_key))
        directory.mkdir(parents=True, exist_ok=True)  # fails now, not at the first packet
        asyncio.run(_runner(target, policy, RiskEngine(risk), settings, directory, output).run())

    run_reporting(work)


def _runner(
    target: Target, policy: Policy, engine: RiskEngine, settings: RunnerSettings, directory: Path, output: str
) -> Runner:
    agent = Agent(
        policy,
        engine,
        principal=target.credentials.principal if target.credentials is not None else "",
        state_directory=directory,
        advise=settings.advise,
        process_id=uuid.uuid4().hex[:12],
        wall_clock=time.time,
        monotonic=time.monotonic,
    )
    return Runner(
        target,
        agent,
        settings,
        greet=_greeter(policy.name, settings.advise, output),
        tell=_TELLERS[output],
        monotonic=time.monotonic,
    )


def _greeter(policy_name: str, advise: bool, output: str) -> Greet:
    """Says on stderr what a session is for, to somebody who reads along."""

    def greet(run_id: str) -> None:
        if output == "text":
            click.echo(f"{'advises' if advise else 'steers'} run {run_id} as policy {policy_name}", err=True)

    return greet


def _tell_text(answer: Answer, refusal: str) -> None:
    if not answer.decision.commands and not refusal:
        return
    asked = ", ".join(describe(command) for command in answer.decision.commands) or "wait"
    line = f"step {answer.observation.step}: {asked} ({answer.decision.rationale})"
    click.echo(f"{line}; refused: {refusal}" if refusal else line)


def _tell_json(answer: Answer, refusal: str) -> None:
    told = {
        "step": answer.observation.step,
        "commands": [{"kind": type(command).__name__, **asdict(command)} for command in answer.decision.commands],
        "rationale": answer.decision.rationale,
        "held_out": answer.decision.held_out,
        "propensity": answer.decision.propensity,
        "risk": [
            {"rule": v.rule, "action": v.action.name.lower(), "value": v.value, "threshold": v.threshold}
            for v in answer.verdicts
        ],
        "refused": refusal,
    }
    click.echo(json.dumps(told))


def _tell_nothing(answer: Answer, refusal: str) -> None:
    """Decisions are in the daemon's journal anyway."""


_TELLERS: dict[str, Callable[[Answer, str], None]] = {
    "text": _tell_text,
    "json": _tell_json,
    "none": _tell_nothing,
}


def describe(command: PolicyCommand) -> str:
    """A command in a few words."""
    words = {"Germinate": "germinate", "StartGrafting": "blend in", "Cull": "cull", "Withdraw": "withdraw"}
    verb = words.get(type(command).__name__, type(command).__name__)
    values = asdict(command)
    if "blueprint_id" in values:
        return f"{verb} {values['blueprint_id']} at {values['site']}"
    return f"{verb} seed {values['seed_id']}" if "seed_id" in values else verb
