"""What a library finds when it opens: others in its store, its catalogue lost, its process gone."""

from dataclasses import replace
from pathlib import Path

import pytest

from esperd.leyline.kernel_documents import artifact_id_of
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import KernelFileRole, KernelState
from esperd.urza.library import CATALOGUE_NAME, Library
from esperd.urza.store import Store
from esperd.urza.stored import Cause, CompilationReport, StoredKernel
from tests.unit.urza.samples import (
    VALIDATOR_ID,
    World,
    library,
    make,
    offered,
    refusal,
    report_on,
    upload,
)

F = KernelFileRole.FORWARD


def without_times(kernel: StoredKernel) -> StoredKernel:
    return replace(kernel, create_unix_s=0, update_unix_s=0, last_use_unix_s=0)


def test_another_daemon_finds_what_is_there(run: Library, store: Store, tmp_path: Path, world: World) -> None:
    """The store alone is enough: kernels, reports, pins; a validator that it does not know counts for nothing there."""
    made, pinned, unjudged = make(1), make(2), make(3)
    offered(run, made)
    offered(run, pinned)
    run.pin(pinned.artifact_id, True)
    upload(run, unjudged)
    same = library(tmp_path / "same", store, world)
    assert {k: without_times(v) for k, v in same.kernels.items()} == {
        k: without_times(v) for k, v in run.kernels.items()
    }
    stranger = World(validators={"validator-of-other": Secret(bytes(range(7, 39)))})
    other = library(tmp_path / "other", store, stranger)
    assert {k.state for k in other.kernels.values()} == {KernelState.VALIDATING}
    own = report_on(made.artifact_id, validator_id="validator-of-other", secret=Secret(bytes(range(7, 39))))
    assert other.offer(made.artifact_id, *own).state is KernelState.OFFERED
    run.rescan()
    assert run.kernels[made.artifact_id].state is KernelState.OFFERED
    assert run.kernels[made.artifact_id].documents.report_signature.key_id == VALIDATOR_ID  # type: ignore[union-attr]
    stranger.close()


def test_another_daemon_removes_what_is_there(run: Library, store: Store, tmp_path: Path, world: World) -> None:
    """It is told, not run into."""
    made, second = make(), make(1)
    offered(run, made)
    offered(run, second)
    other = library(tmp_path / "other", store, world)
    other.delete(made.artifact_id, "mine")
    run.take_changes()
    run.rescan()
    (change,) = run.take_changes()
    assert (change.kernel.artifact_id, change.kernel.state) == (made.artifact_id, KernelState.REMOVED)
    assert change.cause is Cause.MISSING
    other.delete(second.artifact_id, "too")
    assert refusal(lambda: run.open_local_copy(second.artifact_id, tmp_path / "local")).reason == "KERNEL_CORRUPT"
    assert run.kernels[second.artifact_id].state is KernelState.REMOVED
    assert run.take_changes()[-1].cause is Cause.MISSING


def test_another_daemon_finishes_the_same_upload(run: Library, store: Store, tmp_path: Path, world: World) -> None:
    """Whoever is first; the other one has nothing to do any more."""
    made = make()
    run.create_upload(made.manifest, made.signature, "x")
    run.add_chunk(made.artifact_id, F, 0, made.libraries[F][:10])
    upload(library(tmp_path / "other", store, world), made)
    assert run.create_upload(made.manifest, made.signature, "x").state is KernelState.VALIDATING


@pytest.mark.parametrize("loss", ["gone", "garbage", "torn"])
def test_the_catalogue_is_made_again(run: Library, store: Store, tmp_path: Path, world: World, loss: str) -> None:
    """From what lies in the store, when its file is gone or is no catalogue; the old one is moved aside."""
    made, bad = make(), make(1)
    offered(run, made)
    upload(run, bad)
    run.quarantine(bad.artifact_id, "crashed")
    before = {k: without_times(v) for k, v in run.kernels.items()}
    run.close()
    path = tmp_path / "run" / CATALOGUE_NAME
    if loss == "gone":
        path.unlink()
    elif loss == "garbage":
        path.write_bytes(b"no catalogue" * 1000)
    else:
        data = bytearray(path.read_bytes())
        data[4096:] = bytes(len(data) - 4096)
        path.write_bytes(bytes(data))
    again = library(tmp_path / "run", store, world)
    assert {k: without_times(v) for k, v in again.kernels.items()} == before
    aside = list((tmp_path / "run").glob(f"{CATALOGUE_NAME}.unreadable-*"))
    assert len(aside) == (0 if loss == "gone" else 1)


def test_what_is_known_outlives_the_process(run: Library, store: Store, tmp_path: Path, world: World) -> None:
    """Everything but the last use of a moment ago: states, reasons, reports of compilers, what was removed and why."""
    first, second, third = make(1), make(2), make(3)
    offered(run, first)
    upload(run, second)
    run.delete(second.artifact_id, "why not")
    run.create_upload(third.manifest, third.signature, "tibalt")
    run.add_chunk(third.artifact_id, F, 0, third.libraries[F][:77])
    failed = CompilationReport("ab" * 32, KernelState.COMPILE_FAILED, 2, "no compiler", "tezzeret", 5.0)
    run.report_compilation(replace(failed, attempt=1))
    run.report_compilation(failed)
    run.report_compilation(replace(failed, variant_key="cd" * 32))
    run.forget_compilation("cd" * 32)
    run.close()
    again = Library(tmp_path / "run", store, world.trust(), run.limits, world.clock)
    world.opened.append(again)
    assert again.kernels == run.kernels
    assert again.compilations == run.compilations == {failed.variant_key: failed}


def test_garbage_in_the_store(run: Library, store: Store, tmp_path: Path) -> None:
    """Folders that are no kernels, and manifests of another contract, are left alone; a false name is corrupt."""
    store.write("not-a-kernel", "manifest.binpb", [b"x"])
    future = b"\x08\x02"
    name = artifact_id_of(future)
    store.write(name, "manifest.binpb", [future])
    store.write("0" * 64, "manifest.binpb", [future])
    run.rescan()
    assert run.kernels == {}
    assert set(store.folders()) == {"not-a-kernel", name}
