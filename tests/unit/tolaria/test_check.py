"""`inspect_task`: what a user learns of a task before training it."""

from pathlib import Path

import pytest

from esperd.config.settings import GrowthSettings, PolicySettings, RunSettings, Settings, TrainingSettings
from esperd.leyline.errors import EsperdError
from esperd.tolaria.check import inspect_task

TASK = "tests.unit.tolaria.harness:make_task"


def settings(task: str = TASK, **growth: object) -> Settings:
    run = RunSettings(task=task, start_paused=True, wait_for_policy_s=3600.0)
    return Settings(
        run=run,
        training=TrainingSettings(device="cpu"),
        growth=GrowthSettings(**growth),  # type: ignore[arg-type]
        policy=PolicySettings(required=True),
    )


def test_a_report_says_what_one_step_showed():
    """Shapes, counts, costs of every admissible blueprint, memory of a snapshot; nothing waits for a policy."""
    report = inspect_task(settings(sites=("0", "4")))
    num_parameters = 6 * 8 + 8 + 2 * 8 + 8 * 2 + 2
    assert report.num_parameters == report.num_trained_parameters == num_parameters
    assert report.input_shapes == ("(8, 6) float32",)
    assert report.target_shapes == ("(8,) int64",)
    assert report.output_shapes == ("(8, 2) float32",)
    assert report.step_flops > 0
    assert [site.site for site in report.sites] == ["0", "4"]
    assert all(offer.cost.num_parameters > 0 for site in report.sites for offer in site.offers)
    assert report.snapshot_bytes >= 3 * 4 * num_parameters  # weights and two moments
    assert (report.device, report.amp, report.optimizer) == ("cpu", "off", "AdamW")


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("nowhere:f", "TASK_NOT_FOUND"),
        ("tests.unit.tolaria.harness:Clock", "TASK_INVALID"),
        ("tests.unit.tolaria.tasks:raising_in_forward", "TASK_FAILED"),
        ("tests.unit.tolaria.tasks:raising_in_backward", "TASK_FAILED"),
        ("tests.unit.tolaria.tasks:leaving_in_a_step", "TASK_FAILED"),
    ],
)
def test_a_bad_task_is_an_error_of_the_catalogue(task: str, reason: str):
    """Also when only the step shows it."""
    with pytest.raises(EsperdError) as failure:
        inspect_task(settings(task), Path.cwd())
    assert failure.value.reason == reason


def test_an_unknown_site_is_an_error_with_the_names_there_are():
    """The pattern that names no module."""
    with pytest.raises(EsperdError) as failure:
        inspect_task(settings(sites=("layer9",)))
    assert failure.value.reason == "SITE_PATTERN"
