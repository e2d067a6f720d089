"""What the library keeps, offers, and lets go."""

import shutil
from pathlib import Path

import pytest

from esperd.leyline.kernel_documents import read_manifest
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import HandlingClass, KernelFileRole, KernelState
from esperd.urza.library import Library
from esperd.urza.store import Store, open_store
from esperd.urza.stored import Cause, LibraryLimits
from tests.unit.urza.samples import (
    OTHER_COMPILER,
    ROLES,
    VALIDATOR_ID,
    Made,
    World,
    library,
    make,
    offered,
    refusal,
    report_on,
    upload,
)

F = KernelFileRole.FORWARD
DAY_S = 86_400.0


def damage(store: Store, made: Made, name: str) -> None:
    """Change one byte of a file, as a disk may."""
    data = bytearray(b"".join(store.read(made.artifact_id, name)))
    data[len(data) // 2] ^= 1
    store.write(made.artifact_id, name, [bytes(data)])


def library_name(made: Made, role: KernelFileRole = F) -> str:
    return read_manifest(made.manifest).files[role].name


def test_a_good_report_offers_a_kernel(run: Library, tmp_path: Path) -> None:
    """From then on seeds are given it, whole and private."""
    made = make()
    kernel = offered(run, made)
    assert kernel.state is KernelState.OFFERED
    assert kernel.report is not None
    assert run.take_changes()[-1].cause is Cause.VALIDATED
    run.open_local_copy(made.artifact_id, tmp_path / "local" / made.artifact_id)
    names = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "local" / made.artifact_id).iterdir()}
    documents = {"manifest.binpb", "manifest.sig.json", "report.binpb", "report.sig.json"}
    assert names == dict.fromkeys(documents | {library_name(made, role) for role in ROLES}, 0o400)
    assert run.verify(made.artifact_id) == ()


def test_a_bad_report_quarantines_it(run: Library, tmp_path: Path) -> None:
    """It is kept to be looked at and never given; its bytes are what they must be."""
    made = make()
    upload(run, made)
    kernel = run.offer(made.artifact_id, *report_on(made.artifact_id, HandlingClass.QUARANTINE))
    assert (kernel.state, kernel.detail) == (KernelState.QUARANTINED, "forward (far off)")
    assert refusal(lambda: run.open_local_copy(made.artifact_id, tmp_path / "local")).reason == "KERNEL_NOT_OFFERED"
    assert not (tmp_path / "local").exists()
    assert run.verify(made.artifact_id) == ()


def test_a_report_that_does_not_count(run: Library) -> None:
    """It changes nothing."""
    made = make()
    upload(run, made)
    forged = report_on(made.artifact_id, secret=Secret(bytes(range(9, 41))))
    assert refusal(lambda: run.offer(made.artifact_id, *forged)).reason == "KERNEL_REPORT_INVALID"
    assert refusal(lambda: run.offer(made.artifact_id, *report_on(make(1).artifact_id))).reason == (
        "KERNEL_REPORT_INVALID"
    )
    assert run.kernels[made.artifact_id].state is KernelState.VALIDATING


def test_a_kernel_that_was_not_validated_is_not_given(run: Library, tmp_path: Path) -> None:
    """Only the validator gets it."""
    made = make()
    upload(run, made)
    error = refusal(lambda: run.open_local_copy(made.artifact_id, tmp_path / "local"))
    assert (error.reason, error.metadata["state"]) == ("KERNEL_NOT_OFFERED", "VALIDATING")
    run.copy_for_validation(made.artifact_id, tmp_path / "trial")
    assert {path.name for path in (tmp_path / "trial").iterdir()} == {
        "manifest.binpb",
        "manifest.sig.json",
        *(library_name(made, role) for role in ROLES),
    }


def test_a_fault_is_for_ever_and_for_all(run: Library, store: Store, tmp_path: Path, world: World) -> None:
    """Quarantined by one daemon, whatever reports say, also for another one and after the catalogue is lost."""
    made = make()
    offered(run, made)
    kernel = run.quarantine(made.artifact_id, "it crashed in seed 7")
    assert (kernel.state, kernel.detail) == (KernelState.QUARANTINED, "it crashed in seed 7")
    assert run.take_changes()[-1].cause is Cause.FAULT
    assert run.offer(made.artifact_id, *report_on(made.artifact_id)).state is KernelState.QUARANTINED
    assert run.create_upload(made.manifest, made.signature, "x").state is KernelState.QUARANTINED
    other = library(tmp_path / "other", store, world)
    assert other.kernels[made.artifact_id].detail == "it crashed in seed 7"


@pytest.mark.parametrize("what", ["library", "manifest", "signature", "large", "short", "missing"])
def test_corrupt_on_a_read(run: Library, store: Store, tmp_path: Path, what: str) -> None:
    """Found out, quarantined, told, removed; never given. The same kernel can then come again."""
    made = make()
    offered(run, made)
    if what == "library":
        damage(store, made, library_name(made))
    elif what == "manifest":
        damage(store, made, "manifest.binpb")
    elif what == "signature":
        store.write(made.artifact_id, "manifest.sig.json", [b"{"])
    elif what == "large":
        store.write(made.artifact_id, "manifest.sig.json", [bytes((1 << 20) + 1)])
    elif what == "short":
        store.write(made.artifact_id, library_name(made), [made.libraries[F][:-1]])
    else:
        store.remove_file(made.artifact_id, library_name(made))
    run.take_changes()
    if what == "library":
        error = refusal(lambda: run.open_local_copy(made.artifact_id, tmp_path / "local"))
        assert error.reason == "KERNEL_CORRUPT"
        assert not (tmp_path / "local").exists()
    else:
        (finding,) = run.verify(made.artifact_id)
        assert finding == run.kernels[made.artifact_id].detail
    assert [(c.kernel.state, c.cause) for c in run.take_changes()] == [
        (KernelState.QUARANTINED, Cause.CORRUPT),
        (KernelState.REMOVED, Cause.CORRUPT),
    ]
    assert store.folders() == {}
    assert refusal(lambda: run.open_local_copy(made.artifact_id, tmp_path / "local")).reason == "KERNEL_NOT_OFFERED"
    assert offered(run, made).state is KernelState.OFFERED


def test_verify_reads_every_byte(run: Library, store: Store) -> None:
    """The last library's middle byte is enough."""
    made = make()
    offered(run, made)
    damage(store, made, library_name(made, KernelFileRole.PARAMETER_BACKWARD))
    (finding,) = run.verify(made.artifact_id)
    assert "parameter_backward" in finding
    assert run.kernels[made.artifact_id].state is KernelState.REMOVED
    assert refusal(lambda: run.verify(made.artifact_id)).reason == "KERNEL_NOT_OFFERED"


def test_a_damaged_report_is_no_report(run: Library, store: Store) -> None:
    """The kernel itself is sound: it is validated again."""
    made = make()
    offered(run, made)
    damage(store, made, f"report-{VALIDATOR_ID}.binpb")
    (finding,) = run.verify(made.artifact_id)
    assert "does not count" in finding
    assert run.kernels[made.artifact_id].state is KernelState.VALIDATING
    assert run.offer(made.artifact_id, *report_on(made.artifact_id)).state is KernelState.OFFERED
    assert run.verify(made.artifact_id) == ()


def test_verify_tells_a_signature_that_counts_no_longer(run: Library, world: World) -> None:
    """A revoked key is a finding, and takes the kernel out of use; its bytes stay."""
    made = make()
    offered(run, made)
    world.keys = [OTHER_COMPILER]
    assert run.verify(made.artifact_id) == ("the key compiler-1 is unknown",)
    assert run.kernels[made.artifact_id].state is KernelState.QUARANTINED


def test_read_library_compares_the_digest(run: Library, store: Store) -> None:
    """A download never gives corrupt bytes."""
    made = make()
    offered(run, made)
    damage(store, made, library_name(made))
    assert refusal(lambda: run.read_library(made.artifact_id, F)).reason == "KERNEL_CORRUPT"


def test_delete(run: Library, store: Store) -> None:
    """Refused while a seed runs it; else gone, with the reason, and the next time already gone."""
    made = make()
    offered(run, made)
    assert refusal(lambda: run.delete(made.artifact_id, "old", {made.artifact_id})).reason == "KERNEL_IN_USE"
    kernel = run.delete(made.artifact_id, "old")
    assert (kernel.state, kernel.detail, kernel.num_bytes) == (KernelState.REMOVED, "old", 0)
    assert run.delete(made.artifact_id, "again").detail == "old"
    assert store.folders() == {}
    assert run.query() == []
    assert refusal(lambda: run.delete("f" * 64, "")).reason == "KERNEL_UNKNOWN"


def test_delete_of_an_upload(run: Library) -> None:
    """Its parts go, and its room is free."""
    made = make()
    run.create_upload(made.manifest, made.signature, "x")
    run.add_chunk(made.artifact_id, F, 0, b"".join([made.libraries[F]]))
    run.delete(made.artifact_id, "no")
    assert run.stored_bytes == 0
    assert [part.num_received for part in run.create_upload(made.manifest, made.signature, "x").progress] == [0, 0, 0]


def test_names(run: Library) -> None:
    """An artifact id, or enough of it to mean one."""
    made = make()
    upload(run, made)
    assert run.find(made.artifact_id[:6]).artifact_id == made.artifact_id
    for name in (made.artifact_id[:5], "f" * 64, ""):
        assert refusal(lambda name=name: run.find(name)).reason == "KERNEL_UNKNOWN"


def test_query(run: Library, world: World) -> None:
    """By state; newest first; REMOVED only when asked for."""
    first, second, third = make(1), make(2, blueprint_id="lora"), make(3)
    offered(run, first)
    world.now_unix_s += 1
    upload(run, second)
    world.now_unix_s += 1
    upload(run, third)
    run.delete(third.artifact_id, "")

    def ids(*states: KernelState) -> list[str]:
        return [kernel.artifact_id for kernel in run.query(*states)]

    assert ids() == [second.artifact_id, first.artifact_id]
    assert ids(KernelState.OFFERED) == [first.artifact_id]
    assert ids(KernelState.REMOVED) == [third.artifact_id]


def test_age_and_pins(run: Library, world: World) -> None:
    """What nobody used for long goes; not what is pinned or in use; what is in use is as new as now."""
    run.set_limits(LibraryLimits(1 << 20, 10 * DAY_S, 1 << 18))
    old, pinned, used = make(1), make(2), make(3)
    for made in (old, pinned, used):
        offered(run, made)
    run.pin(pinned.artifact_id, True)
    world.now_unix_s += 9 * DAY_S
    run.retain({used.artifact_id})
    assert len(run.query()) == 3
    world.now_unix_s += 2 * DAY_S
    run.take_changes()
    run.retain(())
    assert {k.artifact_id for k in run.query()} == {pinned.artifact_id, used.artifact_id}
    (change,) = run.take_changes()
    assert (change.cause, "long" in change.kernel.detail) == (Cause.AGE, True)
    run.pin(pinned.artifact_id, False)
    run.retain(())
    assert {k.artifact_id for k in run.query()} == {used.artifact_id}
    world.now_unix_s += 40 * DAY_S
    run.retain({used.artifact_id})
    assert set(run.kernels) == {used.artifact_id}


def test_an_abandoned_upload_gives_its_room_back(run: Library, world: World) -> None:
    """A day without a byte."""
    made = make()
    run.create_upload(made.manifest, made.signature, "x")
    world.now_unix_s += DAY_S - 1
    run.add_chunk(made.artifact_id, F, 0, b"".join([made.libraries[F][:5]]))
    world.now_unix_s += DAY_S - 1
    run.retain(())
    assert run.stored_bytes > 0
    world.now_unix_s += 2
    run.retain(())
    assert run.stored_bytes == 0
    assert run.take_changes()[-1].cause is Cause.ABANDONED


def test_a_lower_quota(run: Library, world: World) -> None:
    """It is kept at the next retain, the least recently used first."""
    kernels = [make(seed) for seed in range(4)]
    for made in kernels:
        offered(run, made)
        world.now_unix_s += 1
    run.set_limits(LibraryLimits(20_000, 0.0, 1 << 18))
    run.retain(())
    assert [k.artifact_id for k in run.query()] == [kernels[3].artifact_id, kernels[2].artifact_id]


def test_a_local_copy_that_is_there(run: Library, tmp_path: Path) -> None:
    """Sound, it stays the same files; damaged, it is made again; its documents are brought up to date."""
    made = make()
    offered(run, made)
    folder = tmp_path / made.artifact_id
    run.open_local_copy(made.artifact_id, folder)
    path = folder / library_name(made)
    inode = path.stat().st_ino
    run.offer(made.artifact_id, *report_on(made.artifact_id, step_ratio=0.5))
    run.open_local_copy(made.artifact_id, folder)
    assert path.stat().st_ino == inode
    assert (folder / "report.binpb").read_bytes() == run.kernels[made.artifact_id].documents.report
    path.chmod(0o600)
    path.write_bytes(b"torn")
    run.open_local_copy(made.artifact_id, folder)
    assert path.read_bytes() == made.libraries[F]
    path.unlink()
    run.open_local_copy(made.artifact_id, folder)
    assert path.read_bytes() == made.libraries[F]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_local_copy_that_cannot_be_made(run: Library, tmp_path: Path) -> None:
    """The disk is named; the kernel is as good as before."""
    made = make()
    offered(run, made)
    (tmp_path / "file").write_text("")
    error = refusal(lambda: run.open_local_copy(made.artifact_id, tmp_path / "file" / "local"))
    assert error.reason == "KERNEL_STORE_UNAVAILABLE"
    assert run.kernels[made.artifact_id].state is KernelState.OFFERED


def test_a_store_that_is_away(tmp_path: Path, world: World) -> None:
    """Each call says so, nothing is forgotten, and all goes on when it is back."""
    store_path = tmp_path / "store"
    run = library(tmp_path / "run", open_store("", store_path), world)
    made, second = make(), make(1)
    offered(run, made)
    store_path.rename(tmp_path / "away")
    store_path.write_text("a file in its place")
    for call in (
        run.rescan,
        lambda: upload(run, second),
        lambda: run.verify(made.artifact_id),
        lambda: run.open_local_copy(made.artifact_id, tmp_path / "local"),
        lambda: run.quarantine(made.artifact_id, "x"),
    ):
        assert refusal(call).reason == "KERNEL_STORE_UNAVAILABLE"
    assert run.kernels[made.artifact_id].state is KernelState.OFFERED
    store_path.unlink()
    shutil.move(tmp_path / "away", store_path)
    assert upload(run, second).state is KernelState.VALIDATING
    assert run.verify(made.artifact_id) == ()


def test_a_directory_that_cannot_be_made(tmp_path: Path, world: World, store: Store) -> None:
    """The library cannot be opened."""
    (tmp_path / "file").write_text("")
    assert refusal(lambda: library(tmp_path / "file" / "run", store, world)).reason == "KERNEL_STORE_UNAVAILABLE"
