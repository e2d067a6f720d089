"""Data in memory, the feed that runs one batch ahead, and where both stand."""

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from esperd.leyline.errors import EsperdError
from esperd.tolaria.data import ByteWindows, TensorBatches
from esperd.tolaria.feed import DeviceCopier, Feed


def numbers(count: int = 10, **options: Any) -> TensorBatches:
    return TensorBatches(torch.arange(count), torch.arange(count) * 2, 4, **options)


def windows(**options: Any) -> ByteWindows:
    return ByteWindows(torch.arange(200, dtype=torch.uint8), 3, 8, 5, **options)


def read(data: Any) -> list[list[int]]:
    return [inputs.flatten().tolist() for inputs, _ in data]


def make_feed(data: Any) -> Feed:
    return Feed(data, DeviceCopier(torch.device("cpu"), prefetch=True, channels_last=False), "test")


def walk(feed: Feed, count: int) -> list[list[int]]:
    batches = []
    for _ in range(count):
        batches.append(feed.next_batch()[0].flatten().tolist())
        feed.advance()
    return batches


def test_without_a_seed_the_order_is_kept_and_the_tail_is_there():
    """Every sample once, the last batch smaller."""
    assert read(numbers()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert read(numbers(drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [len(numbers()), len(numbers(drop_last=True))] == [3, 2]


def test_shuffled_passes_differ_and_are_the_same_for_the_same_seed():
    """Each pass holds every sample once; inputs and targets stay together; the global generator is left alone."""
    state = torch.get_rng_state()
    data, twin = numbers(shuffle_seed=1), numbers(shuffle_seed=1)
    first, second = read(data), read(data)
    assert first != second
    assert sorted(number for batch in second for number in batch) == list(range(10))
    assert [first, second] == [read(twin), read(twin)]
    assert all(torch.equal(targets, inputs * 2) for inputs, targets in data)
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_sizes_are_refused():
    """Unequal lengths, and sizes that give no batch."""
    for arguments, options in (((3, 4, 2), {}), ((3, 3, 0), {}), ((3, 3, 4), {"drop_last": True})):
        inputs, targets, batch_size = arguments
        with pytest.raises(ValueError, match=r"inputs|batch"):
            TensorBatches(torch.zeros(inputs), torch.zeros(targets), batch_size, **options)
    with pytest.raises(ValueError, match="too few"):
        ByteWindows(torch.zeros(4, dtype=torch.uint8), 1, 8, 1)


def test_byte_windows_predict_the_next_byte():
    """Targets are the inputs one byte further on; without a seed every pass is the same."""
    for data in (windows(), windows(random_seed=1)):
        for inputs, targets in data:
            assert inputs.shape == targets.shape == (3, 8)
            assert inputs.dtype is torch.int64
            assert torch.equal(inputs + 1, targets)
    assert read(windows()) == read(windows())
    random = windows(random_seed=1)
    assert read(random) != read(random)


@pytest.mark.parametrize("make", [lambda: numbers(30, shuffle_seed=3), lambda: windows(random_seed=3)])
@pytest.mark.parametrize("num_before", [0, 2, 5, 7, 8, 13])
def test_a_feed_goes_on_exactly_where_it_was(make: Any, num_before: int):
    """At any place inside or between epochs, the batch that is fetched ahead included."""
    feed = make_feed(make())
    walk(feed, num_before)
    state = feed.state_dict()
    expected = walk(feed, 20)
    restored = make_feed(make())
    restored.load_state_dict(state)
    assert walk(restored, 20) == expected
    assert restored.epoch == feed.epoch


def test_data_without_a_state_is_read_again_up_to_the_place():
    """A plain DataLoader in order resumes too."""
    loader = DataLoader(TensorDataset(torch.arange(12), torch.arange(12)), batch_size=2)
    feed = make_feed(loader)
    walk(feed, 8)
    state = feed.state_dict()
    restored = make_feed(loader)
    restored.load_state_dict(state)
    assert walk(restored, 5) == walk(feed, 5)


def test_the_end_of_an_epoch_is_known_at_once():
    """Right after its last batch, not with the first of the next one."""
    feed = make_feed(numbers())
    ends = []
    for _ in range(7):
        feed.next_batch()
        ends.append(feed.advance())
    assert ends == [False, False, True, False, False, True, False]
    assert feed.epoch == 2


def test_a_batch_must_be_a_pair():
    """Anything else is the task's fault, in the catalogue's words."""
    for batch in (torch.zeros(3), {"x": 1}, (1, 2, 3)):
        with pytest.raises(EsperdError, match="not a pair"):
            make_feed([batch]).next_batch()


def test_looking_ahead_changes_nothing():
    """peek gives the batch that comes next."""
    feed = make_feed(numbers())
    assert torch.equal(feed.peek()[0], feed.next_batch()[0])
    assert feed.position == 1
