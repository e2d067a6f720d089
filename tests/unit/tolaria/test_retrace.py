"""Coming back to a place inside an epoch: what each kind of data gives after a resumption, workers included."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from esperd.tolaria.data import TensorBatches
from esperd.tolaria.feed import DeviceCopier, Feed
from tests.unit.tolaria.restoring import assert_equal

CPU = torch.device("cpu")


class Augmented(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Numbers with noise from every generator that a user may reach for."""

    def __init__(self, count: int = 20) -> None:
        self.count = count
        self.own = np.random.default_rng(4)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.rand(()) + random.random() + float(np.random.rand()) + float(self.own.random())
        return index + noise, torch.tensor(index)


class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """An endless kind of data cut into epochs."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in range(20):
            yield index + torch.rand(()), torch.tensor(index)


class Remembering:
    """Data with a state of its own, as torchdata's StatefulDataLoader has it: the state is that of the running pass."""

    def __init__(self) -> None:
        self._next = 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while self._next < 7:
            self._next += 1
            yield torch.tensor([self._next]), torch.tensor([self._next])
        self._next = 0

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next = state["next"]


class Plain:
    """Batches of nobody knows what kind."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in range(7):
            yield torch.tensor([float(index)]), torch.tensor([index])


class Tagged(torch.Tensor):
    """Not a plain tensor, so nothing that can be saved."""


def tagged(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.stack([sample[1] for sample in samples])
    return numbers.float().as_subclass(Tagged), numbers


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(Augmented(), batch_size=3, **{"shuffle": True, **options})


def workers(**options: Any) -> DataLoader[Any]:
    return loader(num_workers=1, multiprocessing_context="forkserver", **options)


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffled": loader,
    "in order": lambda: loader(shuffle=False),
    "own generator": lambda: loader(generator=torch.Generator().manual_seed(2)),
    "sampler with generator": lambda: loader(
        shuffle=False, sampler=RandomSampler(Augmented(), replacement=True, generator=torch.Generator().manual_seed(3))
    ),
    "weighted": lambda: loader(shuffle=False, sampler=WeightedRandomSampler([1.0, 2.0] * 10, 20)),
    "batch sampler": lambda: DataLoader(Augmented(), batch_sampler=BatchSampler(RandomSampler(Augmented()), 3, True)),
    "stream": lambda: DataLoader(Stream(), batch_size=3),
    "list": lambda: [(torch.tensor([float(i)]), torch.tensor([i])) for i in range(7)],
    "tensor batches": lambda: TensorBatches(torch.arange(20.0), torch.arange(20), 3, shuffle_seed=1),
    "own state": Remembering,
    "unknown": Plain,
}


def make_feed(data: Any) -> Feed:
    return Feed(data, DeviceCopier(CPU, prefetch=True, channels_last=False), "test")


def seed(value: int) -> None:
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value)


def walk(feed: Feed, count: int) -> list[list[float]]:
    """Batches as a training run takes them, with draws of the model's own between them."""
    batches = []
    for _ in range(count):
        batches.append(feed.next_batch()[0].flatten().tolist())
        torch.rand(5)
        feed.advance()
    return batches


def global_state() -> tuple[Any, Any, Any]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def put(state: tuple[Any, Any, Any]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


def resumed(make: Callable[[], Any], num_before: int, num_after: int, *, same: bool) -> None:
    """Save after some batches, go on, load into a fresh feed or the same one, and compare what follows."""
    seed(1)
    feed = make_feed(make())
    walk(feed, num_before)
    state, random_state = feed.state_dict(), global_state()
    expected, ended = walk(feed, num_after), global_state()
    seed(99)
    restored = feed if same else make_feed(make())
    restored.load_state_dict(state)
    assert_equal(restored.state_dict(), state)
    put(random_state)
    assert walk(restored, num_after) == expected
    assert torch.equal(torch.get_rng_state(), ended[2])
    assert random.getstate() == ended[0]
    assert (restored.epoch, restored.position) == (feed.epoch, feed.position)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("num_before", [0, 1, 4, 6, 7, 10])
@pytest.mark.parametrize("kind", LOADERS)
def test_every_kind_of_data_goes_on_in_the_middle_of_an_epoch(kind: str, num_before: int, same: bool):
    """In a new process and in the same one, augmented in the main process; epochs have 6 or 7 batches."""
    resumed(LOADERS[kind], num_before, 12, same=same)


@pytest.mark.parametrize(("num_before", "same"), [(3, False), (7, True)])
def test_workers_go_on_with_the_same_augmentations(num_before: int, same: bool):
    """They walk the epoch again from its beginning, so that their own random streams stand where they stood."""
    resumed(workers, num_before, 6, same=same)


def test_persistent_workers_keep_at_least_the_order():
    """In the epoch in which they were started and in later ones; what they draw themselves is not promised."""
    rows = torch.arange(12.0)
    make = lambda: DataLoader(  # noqa: E731 - as the other loaders are given
        TensorDataset(rows, rows), 3, shuffle=True, num_workers=1, persistent_workers=True,
        multiprocessing_context="forkserver",
    )  # fmt: skip
    resumed(make, 6, 5, same=False)
    resumed(make, 2, 5, same=True)


def test_a_load_leaves_the_global_generators_alone():
    """They are restored by whoever saved them, before or after."""
    seed(1)
    feed = make_feed(loader())
    walk(feed, 3)
    state = feed.state_dict()
    before = global_state()
    feed.load_state_dict(state)
    assert torch.equal(torch.get_rng_state(), before[2])
    assert random.getstate() == before[0]


def test_a_batch_that_cannot_be_saved_is_fetched_again_and_said_so_once():
    """The order stays exact."""
    make = lambda: loader(collate_fn=tagged)  # noqa: E731 - as the other loaders are given
    resumed(make, 4, 8, same=False)
    feed = make_feed(make())
    walk(feed, 2)
    assert feed.state_dict()["staged"] is None
    assert len(feed.take_warnings()) == 1
    feed.state_dict()
    assert feed.take_warnings() == []


def test_what_cannot_be_exact_is_said_at_the_start():
    """Persistent workers and data of an unknown kind; nothing is said of the others."""
    persistent = workers(persistent_workers=True)
    assert "persistent_workers" in make_feed(persistent).take_warnings()[0]
    assert "no state_dict" in make_feed(Plain()).take_warnings()[0]
    for kind in LOADERS.keys() - {"unknown"}:
        assert make_feed(LOADERS[kind]()).take_warnings() == []


def test_batches_can_be_left_out_over_the_end_of_an_epoch():
    """What follows is what would have followed them."""
    seed(1)
    whole = make_feed(LOADERS["tensor batches"]())
    expected = walk(whole, 12)
    feed = make_feed(LOADERS["tensor batches"]())
    assert walk(feed, 2) == expected[:2]
    feed.skip(6)
    assert walk(feed, 4) == expected[8:]
    assert (feed.epoch, feed.position) == (whole.epoch, whole.position)


def test_the_layout_of_the_fetched_batch_is_kept():
    """channels_last and views with gaps come back with their strides, so that kernels add in the same order."""
    wide = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    feed = make_feed([(wide, wide[:, :1]), (wide, wide[:, 1:])])
    walk(feed, 1)
    restored = make_feed([])
    restored.load_state_dict(feed.state_dict())
    for one, other in zip(feed.peek(), restored.peek(), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def test_a_loaded_state_shares_no_memory():
    """What is kept for rollbacks must not change while the run goes on."""
    feed = make_feed(LOADERS["tensor batches"]())
    walk(feed, 2)
    state = feed.state_dict()
    other = make_feed(LOADERS["tensor batches"]())
    other.load_state_dict(state)
    assert other.peek()[0].data_ptr() != state["staged"]["tree"][0].data_ptr()


def test_data_of_another_kind_is_refused():
    """Nothing is guessed."""
    feed = make_feed(LOADERS["tensor batches"]())
    walk(feed, 1)
    with pytest.raises(ValueError, match="own place"):
        make_feed(loader()).load_state_dict(feed.state_dict())
