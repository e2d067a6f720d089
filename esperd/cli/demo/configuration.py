"""The files of one grown run: a run directory of its own and the TOML the daemon reads.

Blocking file work, done once for each run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from esperd.cli.demo.tasks import DemoTask, Option
from esperd.cli.keys import make_key_pair

OPERATOR = "operator"
POLICY = "tamiyo"
COMPILER = "tezzeret"
WAIT_FOR_POLICY_S = 60.0
"""A policy process needs a second or two; a machine that needs a minute has other troubles."""


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where things are that all runs of one demo share."""

    root: Path
    keyring: Path
    operator_key: Path
    policy_key: Path
    compiler_key: Path


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Where things are of one run."""

    directory: Path
    configuration: Path
    address: str


def make_demo_files(root: Path, now_unix_s: float) -> DemoFiles:
    """A key ring with three principals: an operator, a policy that may only steer, a compiler that may only upload."""
    names = ("keys.toml", "operator.toml", "tamiyo.toml", "tezzeret.toml")
    files = DemoFiles(root, *(root / name for name in names))
    for principal, path, permissions in (
        (OPERATOR, files.operator_key, ("observe", "command", "emergency", "operate")),
        (POLICY, files.policy_key, ("observe", "command")),
        (COMPILER, files.compiler_key, ("observe", "compile")),
    ):
        make_key_pair(principal, permissions, files.keyring, path, "", now_unix_s=now_unix_s)
    return files


def make_run_files(demo: DemoFiles, name: str, task: DemoTask, num_steps: int, random_seed: int) -> RunFiles:
    """The run's directory, with the configuration in it."""
    directory = demo.root / name
    directory.mkdir(mode=0o700)
    sections: Mapping[str, Mapping[str, Option | list[str]]] = {
        "run": {
            "task": task.spec,
            "name": name,
            "num_steps": num_steps,
            "random_seed": random_seed,
            "num_threads": 1,
            "directory": ".",
            "wait_for_policy_s": WAIT_FOR_POLICY_S,
        },
        "run.task_options": {**task.options, "num_steps": num_steps, "data_seed": random_seed},
        "training": {"device": "cpu"},
        "growth": {"sites": list(task.sites), **task.growth},
        "control": {"keyring": str(demo.keyring)},
        "policy": {"packet_every_steps": task.packet_every_steps},
    }
    configuration = directory / "esperd.toml"
    configuration.write_text("\n".join(_section(name, values) for name, values in sections.items()))
    return RunFiles(directory, configuration, f"unix:{directory / 'leyline.sock'}")


def _section(name: str, values: Mapping[str, Option | list[str]]) -> str:
    # JSON's strings, numbers, booleans and lists of strings are TOML as well.
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]) + "\n"
