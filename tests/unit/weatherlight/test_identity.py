"""Names are made once, from the settings, the time and random bytes."""

from dataclasses import replace

from esperd.config.settings import ControlSettings, RunSettings, Settings
from esperd.weatherlight.identity import make_identity

NOON = 1_790_000_000.0


def test_the_daemon_id_is_the_same_at_every_start() -> None:
    """The audience of signed requests comes from the run's name; epoch and run id are new each time."""
    settings = Settings(run=RunSettings(name="digits"))
    first, second = make_identity(settings, NOON), make_identity(settings, NOON)
    assert first.daemon_id == second.daemon_id == "esperd-digits"
    assert first.epoch != second.epoch
    assert first.run_id != second.run_id


def test_a_configured_daemon_id_is_used_as_it_is() -> None:
    """`[control] daemon_id` names the audience."""
    settings = Settings(control=ControlSettings(daemon_id="gpu0"))
    assert make_identity(settings, NOON).daemon_id == "gpu0"


def test_run_ids_sort_by_time() -> None:
    """A later start has a greater run id."""
    settings = Settings(run=RunSettings(name="x"))
    assert make_identity(settings, NOON).run_id < make_identity(settings, NOON + 1).run_id


def test_without_a_name_the_directory_names_the_run() -> None:
    """Characters that do not belong in a name become dashes."""
    settings = Settings(run=RunSettings(directory="/x/my run"))
    assert make_identity(settings, NOON).daemon_id == "esperd-my-run"
    unnamed = replace(settings, run=RunSettings(directory="/"))
    assert make_identity(unnamed, NOON).daemon_id == "esperd-run"


def test_the_epoch_has_sixteen_bytes() -> None:
    """As the signing scheme asks."""
    assert len(make_identity(Settings(), NOON).epoch) == 16
