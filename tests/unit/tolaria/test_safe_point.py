"""Each date of a safe point is kept, whatever the others are."""

from esperd.config.settings import CheckpointSettings, Settings, TrainingSettings
from esperd.leyline.commands import PolicyPresence
from tests.unit.tolaria.harness import Run


def test_packets_that_a_policy_asks_for_do_not_depend_on_other_dates():
    """Every 15 steps is at 15 and 45 too, though the run logs every 10; 30 is the end of an epoch."""
    settings = Settings(
        training=TrainingSettings(device="cpu", log_every_steps=10, validate_every_steps=1000),
        checkpoints=CheckpointSettings(every_steps=0, snapshot_every_steps=0),
    )
    run = Run(settings=settings).begin()
    run.submit(PolicyPresence(True, "", 15))
    run.steps(47)
    asked_for = [packet.snapshot.run.global_step for packet in run.packets() if packet.reason == "interval"]
    assert asked_for == [15, 45]
