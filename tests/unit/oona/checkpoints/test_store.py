"""The store: one owner, whole checkpoints only, nothing lost by removing."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.retention import Retention
from esperd.oona.checkpoints.store import CheckpointStore
from tests.unit.oona.checkpoints.samples import DRAFT, FILES, RUN, draft, write

HOLD = """
import sys, time
from pathlib import Path
from esperd.oona.checkpoints.store import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]))
store.begin("half").file("model.safetensors").write(b"half")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def ids(store: CheckpointStore, run_id: str = "") -> list[str]:
    return [stored.manifest.checkpoint_id for stored in store.list(run_id)]


def reason_of(store: CheckpointStore, checkpoint_id: str, run_id: str = "") -> str:
    with pytest.raises(EsperdError) as caught:
        store.get(checkpoint_id, run_id)
    return caught.value.reason


def test_a_checkpoint_is_stored_and_found(store: CheckpointStore) -> None:
    """It is listed, got and verified; the manifest has every file with its size."""
    stored = write(store)
    assert store.list() == (stored,)
    assert store.get(DRAFT.checkpoint_id) == store.get(DRAFT.checkpoint_id, RUN) == stored
    assert store.verify(DRAFT.checkpoint_id) == ()
    assert {entry.name: entry.num_bytes for entry in stored.manifest.files} == {k: len(v) for k, v in FILES.items()}
    assert stored.num_bytes == sum(path.stat().st_size for path in stored.path.iterdir())
    assert replace(stored.manifest, files=()) == DRAFT


def test_everything_is_private(store: CheckpointStore) -> None:
    """Directories are 0700 and files 0600, whatever the umask."""
    stored = write(store)
    store.mark_good(DRAFT.checkpoint_id)
    for path in (store.directory, stored.path.parent, stored.path):
        assert path.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in stored.path.iterdir()} == {0o600}


def test_the_owner_is_named_and_its_half_written_work_is_swept_after_its_death(tmp_path: Path) -> None:
    """While it lives nobody else gets in, and a reader sees nothing half-written; once killed, its rest is swept."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == "held\n"
            with pytest.raises(EsperdError) as refusal:
                CheckpointStore(tmp_path)
            assert CheckpointStore.reader(tmp_path).list() == ()
            assert any(path.name.startswith(".tmp-") for path in tmp_path.iterdir())
        finally:
            owner.send_signal(signal.SIGKILL)
    assert refusal.value.reason == "DIRECTORY_TAKEN"
    assert refusal.value.metadata == {"path": str(tmp_path), "pid": str(owner.pid)}
    store = CheckpointStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["owner.lock"]
    store.release()


def test_a_second_store_in_the_same_process_is_refused_until_release(store: CheckpointStore) -> None:
    """The lock holds between parts of one process as well."""
    with pytest.raises(EsperdError, match=str(os.getpid())):
        CheckpointStore(store.directory)
    store.release()
    CheckpointStore(store.directory).release()


def test_a_sweep_spares_what_this_store_is_writing(store: CheckpointStore) -> None:
    """A pending checkpoint survives `sweep` and commits afterwards."""
    (store.directory / ".tmp-1-1-old").mkdir()
    with store.begin(DRAFT.checkpoint_id) as pending:
        store.sweep()
        assert pending.path.exists()
        pending.commit(DRAFT)
    assert not (store.directory / ".tmp-1-1-old").exists()
    assert ids(store) == [DRAFT.checkpoint_id]


def test_the_list_is_in_order_of_history(store: CheckpointStore) -> None:
    """By run, then timeline, then step: a later timeline is newer although its steps are smaller."""
    for step, timeline in ((500, 1), (300, 2), (1000, 1), (400, 2)):
        write(store, draft(step, timeline=timeline))
    write(store, replace(draft(1, run_id="earlier"), written_unix_s=5.0))
    assert [(c.manifest.run_id, c.manifest.timeline, c.manifest.global_step) for c in store.list()] == [
        ("earlier", 1, 1),
        (RUN, 1, 500),
        (RUN, 1, 1000),
        (RUN, 2, 300),
        (RUN, 2, 400),
    ]
    assert len(store.list("earlier")) == 1
    assert store.list("no-such-run") == store.list("..") == ()


def test_the_good_mark_is_one_durable_file(store: CheckpointStore) -> None:
    """Marking twice changes nothing; other processes see it; it does not make the checkpoint unsound."""
    stored = write(store)
    assert not stored.is_good
    store.mark_good(DRAFT.checkpoint_id)
    store.mark_good(DRAFT.checkpoint_id)
    assert CheckpointStore.reader(store.directory).get(DRAFT.checkpoint_id).is_good
    assert store.verify(DRAFT.checkpoint_id) == ()


def test_an_unknown_checkpoint_is_refused(store: CheckpointStore) -> None:
    """By `get`, `verify`, `mark_good` and `remove`; a path is no id."""
    write(store)
    for checkpoint_id in ("none", "", "..", f"{RUN}/{DRAFT.checkpoint_id}"):
        for act in (store.get, store.verify, store.mark_good, store.remove):
            with pytest.raises(EsperdError) as caught:
                act(checkpoint_id)
            assert caught.value.reason == "CHECKPOINT_UNKNOWN"
    assert reason_of(store, DRAFT.checkpoint_id, "another-run") == "CHECKPOINT_UNKNOWN"


def test_an_id_that_two_runs_have_needs_the_run(store: CheckpointStore) -> None:
    """Nothing is guessed."""
    write(store, draft(5, run_id="one"))
    write(store, draft(5, run_id="two"))
    assert reason_of(store, draft(5).checkpoint_id) == "CHECKPOINT_UNKNOWN"
    assert store.get(draft(5).checkpoint_id, "two").manifest.run_id == "two"


def test_the_same_id_twice_is_refused(store: CheckpointStore) -> None:
    """The first one stays untouched and nothing hidden is left."""
    write(store)
    with pytest.raises(EsperdError) as caught:
        write(store)
    assert caught.value.reason == "FILE_EXISTS"
    assert store.verify(DRAFT.checkpoint_id) == ()
    assert not list(store.directory.glob(".tmp-*"))


def test_damaged_ones_are_invisible_but_named(store: CheckpointStore) -> None:
    """No manifest, half of one, another's, a later format: `list` leaves them out, `damaged` and `get` say why."""
    whole = write(store, draft(1))
    bare, half, foreign, later = (write(store, draft(step)) for step in (2, 3, 4, 5))
    (bare.path / "manifest.json").unlink()
    manifest = half.path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    (foreign.path / "manifest.json").write_bytes((whole.path / "manifest.json").read_bytes())
    fields = json.loads((later.path / "manifest.json").read_bytes())
    (later.path / "manifest.json").write_text(json.dumps(fields | {"format": 2}))
    assert store.list() == (whole,)
    damaged = [bare, half, foreign, later]
    assert [name for name, _ in store.damaged()] == [stored.manifest.checkpoint_id for stored in damaged]
    reasons = [reason_of(store, stored.manifest.checkpoint_id) for stored in damaged]
    assert reasons == ["CHECKPOINT_CORRUPT"] * 3 + ["CHECKPOINT_VERSION"]
    assert all(store.verify(stored.manifest.checkpoint_id) for stored in damaged)
    store.remove(bare.manifest.checkpoint_id)
    assert len(store.damaged()) == 3


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_every_damage_is_found(store: CheckpointStore, name: str) -> None:
    """A file that is gone, longer, shorter or has one bit turned makes `verify` name it."""
    path = write(store).path / name
    data = path.read_bytes()
    path.unlink()
    assert any(name in problem or "manifest" in problem for problem in store.verify(DRAFT.checkpoint_id))
    versions = [data + b"\0", *([data[:-1], bytes([data[0] ^ 0x40]) + data[1:]] if data else [])]
    for changed in versions:
        path.write_bytes(changed)
        assert store.verify(DRAFT.checkpoint_id), changed[:20]
    path.write_bytes(data)
    assert store.verify(DRAFT.checkpoint_id) == ()
    (path.parent / "stranger").write_bytes(b"")
    assert store.verify(DRAFT.checkpoint_id) == ("stranger does not belong to it",)


def test_pruning_counts_only_what_is_known(store: CheckpointStore) -> None:
    """Checkpoints that nobody could go on from must not push out those from which somebody can."""
    for step in (1, 2, 3, 4):
        write(store, draft(step))
    known = [draft(step).checkpoint_id for step in (1, 2)]
    assert store.prune(Retention(1), run_id=RUN, known=known) == (draft(1).checkpoint_id,)
    assert ids(store, RUN) == [draft(step).checkpoint_id for step in (2, 3, 4)]


def test_pruning_applies_the_rule_to_each_run(store: CheckpointStore) -> None:
    """What it removes is gone from disk; what is protected stays; another run is judged by itself."""
    for step in (1, 2, 3, 4):
        write(store, draft(step))
    write(store, draft(5, CheckpointKind.REQUESTED))
    write(store, draft(1, run_id="other"))
    store.mark_good(draft(2).checkpoint_id)
    protected = draft(1).checkpoint_id
    assert store.prune(Retention(1), [protected]) == (draft(3).checkpoint_id,)
    assert ids(store, RUN) == [draft(step).checkpoint_id for step in (1, 2, 4)] + [ids(store, RUN)[-1]]
    assert ids(store, "other") == [draft(1).checkpoint_id]
    assert not list(store.directory.glob(".tmp-*"))


def test_a_directory_that_cannot_be_used_is_an_error_of_the_catalogue(tmp_path: Path) -> None:
    """A file in the way of the directory, and one in the way of the lock."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "store" / "owner.lock").mkdir(parents=True)
    for path in (tmp_path / "file", tmp_path / "store"):
        with pytest.raises(EsperdError) as caught:
            CheckpointStore(path)
        assert caught.value.reason == "CHECKPOINT_DIRECTORY"
    assert CheckpointStore.reader(tmp_path / "none").list() == ()
