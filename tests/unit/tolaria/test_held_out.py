"""Unit losses, the probe set and validation: held-out numbers that can be compared."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from esperd.config.settings import GrowthSettings
from esperd.leyline.errors import EsperdError
from esperd.tolaria import losses
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.feed import DeviceCopier
from esperd.tolaria.held_out import ProbeSet, evaluating
from esperd.tolaria.packets import PacketProbe
from tests.unit.tolaria.harness import make_task

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 3, 4, 0])


def tokens_loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten())


@pytest.mark.parametrize(
    ("loss_fn", "output", "targets"),
    [
        (functional.cross_entropy, LOGITS, CLASSES),
        (nn.CrossEntropyLoss(), LOGITS, CLASSES),
        (nn.CrossEntropyLoss(label_smoothing=0.1), LOGITS, CLASSES),
        (nn.CrossEntropyLoss(), LOGITS.view(3, 5, 2), torch.tensor([[0, 1], [2, 3], [4, 0]])),
        (functional.mse_loss, LOGITS, LOGITS * 2),
        (nn.MSELoss(), LOGITS, LOGITS * 2),
        (nn.L1Loss(), LOGITS, LOGITS * 2),
        (tokens_loss, LOGITS.view(3, 2, 5), torch.tensor([[0, 1], [2, 3], [4, 0]])),
    ],
)
def test_unit_losses_average_to_the_loss(loss_fn: Any, output: torch.Tensor, targets: torch.Tensor):
    """One loss per sample (or sequence); their mean is the training loss."""
    units = losses.unit_losses(make_task(loss_fn=loss_fn))(output, targets)
    assert units.shape == (len(output),)
    assert units.mean().item() == pytest.approx(loss_fn(output, targets).item(), rel=1e-5)


def test_ignored_tokens_do_not_count_in_a_sequence():
    """The mean of a sequence is over the tokens that count."""
    output, targets = LOGITS.view(3, 5, 2), torch.tensor([[0, -100], [2, 3], [4, 0]])
    units = losses.unit_losses(make_task(loss_fn=functional.cross_entropy))(output, targets)
    assert units[0].item() == pytest.approx(functional.cross_entropy(output[:1], targets[:1]).item(), rel=1e-5)


def test_the_tasks_own_unit_losses_come_first():
    """What the task gives is taken, in float32."""
    task = make_task(per_sample_loss=lambda output, targets: torch.full((len(output),), 3.0, dtype=torch.float64))
    units = losses.unit_losses(task)(LOGITS, CLASSES)
    assert units.dtype is torch.float32
    assert units.tolist() == [3.0] * 6


def make_probe_set(count: int = 10, random_seed: int = 0) -> ProbeSet:
    data = TensorBatches(torch.arange(count), torch.arange(count), 3)
    return ProbeSet(data, DeviceCopier(torch.device("cpu"), prefetch=False, channels_last=False), random_seed, "test")


def drawn(probe_set: ProbeSet, num_units: int) -> list[int]:
    return [int(x) for inputs, _ in probe_set.draw(num_units) for x in inputs]


def test_probe_units_come_without_replacement_until_all_are_used():
    """Ten units in three draws of four: each of the ten before any comes again; no global generator is touched."""
    state = torch.get_rng_state()
    probe_set = make_probe_set()
    units = drawn(probe_set, 4) + drawn(probe_set, 4) + drawn(probe_set, 4)
    assert sorted(units[:10]) == list(range(10))
    assert len(units) == 12
    assert len(drawn(probe_set, 50)) == 10
    assert torch.equal(torch.get_rng_state(), state)


def test_the_probe_stream_goes_on_exactly_after_a_restore():
    """Its generator and what is left of the pass are its state."""
    probe_set = make_probe_set()
    drawn(probe_set, 4)
    state = probe_set.state_dict()
    expected = [drawn(probe_set, 5) for _ in range(4)]
    restored = make_probe_set(random_seed=9)
    restored.load_state_dict(state)
    assert [drawn(restored, 5) for _ in range(4)] == expected


def test_probe_data_that_cannot_be_joined_is_a_clear_error():
    """Batches of different shapes, and no batch at all."""
    copier = DeviceCopier(torch.device("cpu"), prefetch=False, channels_last=False)
    for data in ([], [(torch.zeros(2, 3), torch.zeros(2)), (torch.zeros(2, 4), torch.zeros(2))]):
        with pytest.raises(EsperdError) as failure:
            len(ProbeSet(data, copier, 0, "test"))
        assert failure.value.reason == "TASK_INVALID"


def test_modes_come_back_exactly_even_after_an_error():
    """A layer that the user keeps in eval mode stays there."""
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[0].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [model.training, model[0].training, model[1].training] == [True, False, True]
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert [model.training, model[0].training, model[1].training] == [True, False, True]


def test_packets_on_an_interval_are_all_measured_within_the_budget():
    """Two per cent of fifty steps of 64 samples buy 192 probe forwards; other packets are not measured."""
    probe = PacketProbe(GrowthSettings(), packet_every_steps=50)
    assert [probe.units_now(step, 64) for step in (50, 64, 100)] == [192, 0, 192]
    assert probe.units_now(128, 64, is_last=True) == 192


def test_packets_at_epochs_are_measured_when_they_are_paid_for():
    """A first one at once, then again when enough steps have passed, with the same number of units."""
    probe = PacketProbe(GrowthSettings(probe_budget=0.01), packet_every_steps=0)
    measured = [probe.units_now(step, 64) for step in range(4, 60, 4)]
    assert measured[0] == 32
    assert set(measured) == {0, 32}
    assert measured.count(32) * 32 / (3 * 64) <= 0.01 * 60 + 32 / (3 * 64)


def test_the_probe_units_do_not_depend_on_when_they_are_read() -> None:
    """Data that is shuffled or augmented gives the same units after a restart, when other numbers have been drawn."""
    rows = torch.arange(40.0)
    loader = DataLoader(TensorDataset(rows, rows), batch_size=8, shuffle=True)
    copier = DeviceCopier(torch.device("cpu"), prefetch=False, channels_last=False)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(ProbeSet(loader, copier, 3, "test").fixed(10)[0])
    assert torch.equal(*found)
