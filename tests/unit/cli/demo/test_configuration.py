"""The files of a demo's run are what `esperd serve` and the policy read."""

import stat
from pathlib import Path

import pytest
from esper.client.credentials import Credentials

from esperd.cli.demo.configuration import make_demo_files, make_run_files
from esperd.cli.demo.tasks import TASKS
from esperd.config.load import load_settings
from esperd.leyline.keyring import KeyRing
from esperd.leyline.vocabulary import Permission


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_configuration_is_valid_and_pairs_the_arms(name: str, tmp_path: Path) -> None:
    """Weights and data follow the random seed, the socket and the journal are the run's own."""
    demo = make_demo_files(tmp_path, 0.0)
    files = make_run_files(demo, "tamiyo-3", TASKS[name], num_steps=700, random_seed=3)
    settings = load_settings(files.configuration)
    assert settings.run.random_seed == settings.run.task_options["data_seed"] == 3
    assert settings.run.num_steps == settings.run.task_options["num_steps"] == 700
    assert settings.growth.sites == TASKS[name].sites
    assert Path(settings.run.directory) == files.directory
    assert files.address == f"unix:{files.directory}/leyline.sock"
    assert stat.S_IMODE(files.directory.stat().st_mode) == 0o700


def test_everyone_may_do_his_part_and_nothing_else(tmp_path: Path) -> None:
    """Three principals with keys of their own; only the operator may operate, only the compiler compile."""
    demo = make_demo_files(tmp_path, 0.0)
    ring = KeyRing.load(demo.keyring)
    policy, operator = Credentials.load(demo.policy_key), Credentials.load(demo.operator_key)
    policy_key, operator_key = ring.find(policy.key_id), ring.find(operator.key_id)
    assert policy_key is not None
    assert operator_key is not None
    assert policy_key.permissions == {Permission.OBSERVE, Permission.COMMAND}
    assert Permission.OPERATE in operator_key.permissions
    assert Permission.COMPILE not in operator_key.permissions
    compiler_key = ring.find(Credentials.load(demo.compiler_key).key_id)
    assert compiler_key is not None
    assert compiler_key.permissions == {Permission.OBSERVE, Permission.COMPILE}
