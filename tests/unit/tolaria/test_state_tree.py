"""A state captured, kept, written and read is the state that was, bit for bit; damage is always noticed."""

import math
import os
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.manifest import FileEntry
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria.safetensors_header import DTYPES
from esperd.tolaria.state_tree import BufferPool, Captured, capture, read_files, rebuild, write_files
from tests.unit.oona.checkpoints.samples import DRAFT

CPU = torch.device("cpu")

KILLED = """
import os, sys
from pathlib import Path
import torch
from esperd.leyline import failpoints
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria.state_tree import BufferPool, capture, write_files
from tests.unit.oona.checkpoints.samples import draft
def write(store, step):
    tree = {"model": {"w": torch.ones(1000)}, "optimizers": {"m": torch.ones(9)}, "counts": {"steps": step}}
    captured = capture(tree, BufferPool(torch.device("cpu")))
    with store.begin(draft(step).checkpoint_id) as pending:
        write_files(captured, pending)
        pending.commit(draft(step))
root = Path(sys.argv[1])
store = CheckpointStore(root)
write(store, 1)
store.release()
for step, place in enumerate(sys.argv[2:], 2):
    child = os.fork()
    if child == 0:
        failpoints.set_hook(lambda name: os._exit(9) if name == place else None)
        write(CheckpointStore(root), step)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    store = CheckpointStore(root)
    problems = [store.verify(stored.manifest.checkpoint_id) for stored in store.list()]
    print(place, status, problems, len(list(root.glob(".tmp-*"))))
    store.release()
"""


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool(CPU)


def write(store: CheckpointStore, captured: Captured) -> StoredCheckpoint:
    with store.begin(DRAFT.checkpoint_id) as pending:
        write_files(captured, pending)
        return pending.commit(DRAFT)


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    flat = tensor.detach().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def training_state() -> dict[str, Any]:
    """A model with every awkward thing, its optimizer and schedule in the middle of training, and the generators."""
    tied = torch.nn.Linear(4, 4)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), tied, tied)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 5])
    for _ in range(3):
        model(torch.randn(2, 3, 4, 4)).sum().backward()
        optimizer.step()
        schedule.step()
    return {
        "model": model.state_dict(),
        "optimizers": {"host": optimizer.state_dict(), "schedule": schedule.state_dict(), "best": math.inf},
        "generators": {
            "python": random.getstate(),
            "numpy": np.random.default_rng(3).bit_generator.state,
            "numpy_legacy": np.random.RandomState(3).get_state(),
            "torch": torch.get_rng_state(),
        },
        "counts": {"step": 3, "history": [0.1] * 5, "empty": {}},
    }


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert bits(one) == bits(other)
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def test_a_training_state_survives_memory_and_disk(store: CheckpointStore, pool: BufferPool) -> None:
    """Model, optimizer, schedule and every generator come back equal in type, order and bits, both ways."""
    tree = training_state()
    captured = capture(tree, pool)
    assert_same(rebuild(captured), tree)
    assert rebuild(captured)["model"]["0.weight"].is_contiguous(memory_format=torch.channels_last)
    stored = write(store, captured)
    assert store.verify(DRAFT.checkpoint_id) == ()
    read = read_files(stored)
    assert_same(rebuild(read), tree)
    assert read.num_bytes == captured.num_bytes
    names = {entry.name for entry in stored.manifest.files}
    assert names == {"model.safetensors", "optimizers.safetensors", "generators.safetensors", "state.json"}


def test_the_formats_own_library_reads_the_files(store: CheckpointStore, pool: BufferPool) -> None:
    """Names are paths, values are the tensors."""
    tree = training_state()
    stored = write(store, capture(tree, pool))
    loaded = safetensors.torch.load_file(str(stored.path / "model.safetensors"))
    assert {name: bits(tensor) for name, tensor in loaded.items()} == {
        f"model/{name}": bits(tensor) for name, tensor in tree["model"].items()
    }


DTYPE = st.sampled_from(list(DTYPES))
SHAPE = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), DTYPE, SHAPE, st.booleans()), max_size=6), st.integers(0, 99))
def test_any_tensors_survive(rows: list[tuple[str, torch.dtype, tuple[int, ...], bool]], seed: int) -> None:
    """Every dtype, 0-dim, empty, transposed, expanded: the bits are those of the source, and the memory is aligned."""
    generator = torch.Generator().manual_seed(seed)
    tree: dict[str, Any] = {"a": [], "b": [], "c": torch.arange(3)}
    for section, dtype, shape, transposed in rows:
        num_bytes = math.prod(shape) * dtype.itemsize
        raw = torch.randint(0, 2 if dtype is torch.bool else 256, (num_bytes,), dtype=torch.uint8, generator=generator)
        tensor = raw.view(dtype).view(shape)
        tree[section].append(tensor.mT if transposed and len(shape) > 1 else tensor)
    tree["b"].append(torch.tensor([1.5]).expand(4))
    pool = BufferPool(CPU)
    captured = capture(tree, pool)
    assert_same(rebuild(captured), tree)
    for _, data in captured.parts:
        assert data.contiguous


def test_a_capture_does_not_follow_the_live_tensors(pool: BufferPool) -> None:
    """It is a copy, gradients and all left behind."""
    parameter = torch.nn.Parameter(torch.ones(3))
    buffer = torch.zeros(2)
    captured = capture({"model": {"p": parameter, "b": buffer}}, pool)
    with torch.no_grad():
        parameter.fill_(5.0)
        buffer.fill_(5.0)
    tree = rebuild(captured)
    assert tree["model"]["p"].tolist() == [1.0] * 3
    assert tree["model"]["b"].tolist() == [0.0] * 2
    assert not tree["model"]["p"].requires_grad


def test_memory_comes_back_when_everybody_let_go(pool: BufferPool) -> None:
    """Two holders keep it; after the last release the next capture uses the same memory, and too many are a fault."""
    tree = {"model": {"w": torch.ones(100)}}
    first = capture(tree, pool)
    address = first.tensors["model/w"].data_ptr()
    first.retain()
    first.release()
    second = capture(tree, pool)
    assert second.tensors["model/w"].data_ptr() != address
    assert rebuild(first)["model"]["w"].sum() == 100
    first.release()
    assert first.tensors == {}
    assert capture(tree, pool).tensors["model/w"].data_ptr() == address
    for use in (first.release, first.retain, lambda: rebuild(first)):
        with pytest.raises(RuntimeError):
            use()


def test_memory_is_reused_for_a_state_that_has_grown_a_little(pool: BufferPool) -> None:
    """A seed more fits into the spare part of the block; a state twice as large gets a new one."""
    small, grown, large = (
        {"model": {str(n): torch.full((1000,), float(n)) for n in range(num)}} for num in (100, 105, 200)
    )
    first = capture(small, pool)
    address = min(t.data_ptr() for t in first.tensors.values())
    first.release()
    second = capture(grown, pool)
    assert min(t.data_ptr() for t in second.tensors.values()) == address
    assert_same(rebuild(second), grown)
    second.release()
    third = capture(large, pool)
    assert min(t.data_ptr() for t in third.tensors.values()) != address
    assert_same(rebuild(third), large)


def test_reserved_memory_is_used_and_limited(pool: BufferPool) -> None:
    """`reserve` makes at most `max_free` blocks and needs to know a structure."""
    with pytest.raises(ValueError):
        pool.reserve(1)
    tree = {"model": {"w": torch.ones(10)}}
    first = capture(tree, pool)
    pool.reserve(5)
    others = [capture(tree, pool) for _ in range(2)]
    assert len({c.tensors["model/w"].data_ptr() for c in (first, *others)}) == 3


def test_holders_on_many_threads_give_the_memory_back_once(pool: BufferPool) -> None:
    """Releases that race end in exactly one return of the block."""
    tree = {"model": {"w": torch.ones(10)}}
    for _ in range(50):
        captured = capture(tree, pool)
        for _ in range(3):
            captured.retain()
        threads = [threading.Thread(target=captured.release) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert captured.tensors == {}
        one, two = capture(tree, pool), capture(tree, pool)
        assert one.tensors["model/w"].data_ptr() != two.tensors["model/w"].data_ptr()
        one.release()
        two.release()


def test_what_cannot_be_saved_takes_no_memory(pool: BufferPool) -> None:
    """The path is named; sections must be able to name a file."""
    for tree, path in (
        ({"model": {"w": [torch.ones(1), object()]}}, "model/w/1"),
        ({"a/b": 1}, "a/b"),
        ({"": 1}, ""),
        ({"__": torch.ones(1)}, "__"),
    ):
        with pytest.raises(EsperdError) as caught:
            capture(tree, pool)
        assert caught.value.metadata["path"] == path


def test_memory_that_is_not_there_is_an_error_of_the_catalogue(pool: BufferPool) -> None:
    """A state larger than any machine: CHECKPOINT_FAILED."""
    with pytest.raises(EsperdError) as caught:
        capture({"model": torch.ones(1).expand(1 << 55)}, pool)
    assert caught.value.reason == "CHECKPOINT_FAILED"


def test_only_a_capture_that_is_held_is_written(store: CheckpointStore, pool: BufferPool) -> None:
    """A released one, or one that came from files, would leave tensors out; both are faults and leave nothing."""
    captured = capture({"model": torch.ones(3)}, pool)
    read = read_files(write(store, captured))
    captured.release()
    store.remove(DRAFT.checkpoint_id)
    for unusable, fault in ((captured, RuntimeError), (read, ValueError)):
        with pytest.raises(fault):
            write(store, unusable)
    assert store.list() == ()


def test_an_empty_state_is_a_state(store: CheckpointStore, pool: BufferPool) -> None:
    """No sections, and sections without tensors or with empty ones only."""
    assert rebuild(capture({}, pool)) == {}
    captured = capture({"model": torch.zeros(0, 3), "counts": {}, "x": None}, pool)
    tree = rebuild(read_files(write(store, captured)))
    assert tree["model"].shape == (0, 3)
    assert (tree["counts"], tree["x"]) == ({}, None)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizers.safetensors", "generators.safetensors", "state.json"]
)
def test_every_damage_is_noticed_while_reading(store: CheckpointStore, pool: BufferPool, name: str) -> None:
    """Missing, truncated, longer, one bit turned at the beginning, in the middle, at the end: CHECKPOINT_CORRUPT."""
    stored = write(store, capture(training_state(), pool))
    path = stored.path / name
    data = path.read_bytes()

    def turned(index: int) -> bytes:
        return data[:index] + bytes([data[index] ^ 0x10]) + data[index + 1 :]

    path.unlink()
    versions = [None, b"", data[:-1], data + b"\0", turned(0), turned(len(data) // 2), turned(len(data) - 1)]
    for version in versions:
        if version is not None:
            path.write_bytes(version)
        with pytest.raises(EsperdError) as caught:
            read_files(stored)
        assert caught.value.reason == "CHECKPOINT_CORRUPT"
        assert name in caught.value.metadata["detail"]
    path.write_bytes(data)
    read_files(stored)


def forged(store: CheckpointStore, files: dict[str, bytes]) -> StoredCheckpoint:
    """Whole by every hash, written by somebody else."""
    with store.begin(DRAFT.checkpoint_id) as pending:
        for name, data in files.items():
            with pending.file(name) as file:
                file.write(data)
        return pending.commit(DRAFT)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"state.json": b"[]"},
        {"state.json": b'{"a": NaN}'},
        {"state.json": b'{"a": 1, "a": 2}'},
        {"state.json": b"[" * 50_000},
        {"state.json": b"{}", "model.safetensors": b"12345678"},
        {"state.json": b"{}", "model.safetensors": safetensors.torch.save({"model/w": torch.ones(1)})},
        {"state.json": b"{}", "model.safetensors": safetensors.torch.save({"other/w": torch.ones(1)})},
        {"state.json": b"{}", "model.bin": b""},
        {"state.json": b'{"a": {"$": "tensor", "name": "a"}}'},
        {"state.json": b'{"a": {"$": "no such kind"}}'},
        {"state.json": b'{"a": {"$": ["list"]}}'},
        {"state.json": b'{"a": {"$": "array", "name": 3}}'},
        {"state.json": b'{"a": {"$": "tuple", "items": 3}}'},
        {"state.json": b'{"a": {"$": "dict", "items": [[1]]}}'},
        {"state.json": b'{"a": {"$": "dict", "items": [[[1], 2]]}}'},
        {"state.json": b'{"a": {"$": "float", "bits": "00"}}'},
        {"state.json": b'{"a": {"$": "bytes", "base64": "a"}}'},
        {"state.json": b'{"a": {"$": "device", "name": "nowhere"}}'},
        {"state.json": b'{"a": {"$": "dtype", "name": "load"}}'},
        {"state.json": b'{"a": {"$": "ordered", "items": [], "attributes": 3}}'},
        {"state.json": b'{"a": {"$": "size", "items": ["x"]}}'},
        {"state.json": b'{"a": {"$": "deque", "items": [], "maxlen": "x"}}'},
    ],
)
def test_a_forged_checkpoint_is_refused(store: CheckpointStore, files: dict[str, bytes]) -> None:
    """Nothing in it is executed and nothing but CHECKPOINT_CORRUPT comes out."""
    with pytest.raises(EsperdError) as caught:
        rebuild(read_files(forged(store, files)))
    assert caught.value.reason == "CHECKPOINT_CORRUPT"


def test_a_size_that_lies_asks_for_no_memory(store: CheckpointStore, pool: BufferPool) -> None:
    """The manifest's size is held against the file's before anything is allocated."""
    stored = write(store, capture({"model": torch.ones(1)}, pool))
    lying = replace(stored.manifest, files=(FileEntry("model.safetensors", 1 << 60, "0" * 64),))
    with pytest.raises(EsperdError, match="instead of"):
        read_files(replace(stored, manifest=lying))


def test_a_writer_killed_in_any_file_leaves_the_last_one_usable(tmp_path: Path) -> None:
    """Killed in the middle of each file: the first checkpoint verifies, nothing half-written is left or listed."""
    places = [f"checkpoint.writing.{section}" for section in ("model", "optimizers", "state")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path), *places, "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [*(f"{place} 9 [()] 0" for place in places), "none 0 [(), ()] 0"]
