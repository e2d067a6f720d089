"""How a kernel comes in."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import KernelFileRole, KernelState
from esperd.urza.library import UPLOADS_NAME, Library
from esperd.urza.retention import IDLE_UPLOAD_S, MAX_OWN_UPLOADS
from esperd.urza.store import Store, open_store
from esperd.urza.stored import Cause
from tests.unit.urza.samples import (
    COMPILER,
    OTHER_COMPILER,
    ROLES,
    Made,
    World,
    library,
    make,
    offered,
    refusal,
    sign,
    upload,
)

F = KernelFileRole.FORWARD


def received(of: Library, made: Made) -> list[int]:
    return [part.num_received for part in of.kernels[made.artifact_id].progress]


def test_from_nothing_to_validating(run: Library) -> None:
    """Created, sent, finished: each state is told once."""
    made = make()
    kernel = upload(run, made)
    assert kernel.state is KernelState.VALIDATING
    assert kernel.principal == "tezzeret"
    assert kernel.is_complete
    assert [(c.kernel.state, c.previous, c.cause) for c in run.take_changes()] == [
        (KernelState.UPLOADING, KernelState.UNSPECIFIED, Cause.UPLOAD),
        (KernelState.VALIDATING, KernelState.UPLOADING, Cause.UPLOAD),
    ]
    assert {role: run.read_library(made.artifact_id, role) for role in ROLES} == made.libraries
    assert run.take_changes() == ()


def test_chunks_that_are_there_are_passed_over_and_gaps_refused(run: Library) -> None:
    """An upload goes on where it stands, or before it; never beyond."""
    made = make()
    data = made.libraries[F]
    run.create_upload(made.manifest, made.signature, "tezzeret")
    run.add_chunk(made.artifact_id, F, 0, data[:100])
    run.add_chunk(made.artifact_id, F, 0, data[:100])
    run.add_chunk(made.artifact_id, F, 50, data[50:150])
    error = refusal(lambda: run.add_chunk(made.artifact_id, F, 151, data[151:160]))
    assert error.reason == "KERNEL_UPLOAD_GAP"
    assert error.metadata == {"offset": "151", "role": "FORWARD", "num_received": "150"}
    assert received(run, made) == [150, 0, 0]
    assert run.finish(made.artifact_id).state is KernelState.UPLOADING


@pytest.mark.parametrize("cut", [0, 1, 2999, 3000, 3001, 5000, 9005, 9006])
def test_a_cut_at_any_byte(tmp_path: Path, store: Store, world: World, cut: int) -> None:
    """A new process goes on at the byte where the last one stood."""
    made = make()
    stream = [(role, offset, byte) for role, data in made.libraries.items() for offset, byte in enumerate(data)]
    first = library(tmp_path / "run", store, world)
    first.create_upload(made.manifest, made.signature, "tezzeret")
    for role in ROLES:
        sent = bytes(byte for r, _, byte in stream[:cut] if r is role)
        if sent:
            first.add_chunk(made.artifact_id, role, 0, sent)
    first.close()
    second = library(tmp_path / "run", store, world)
    assert sum(part.num_received for part in second.kernels[made.artifact_id].progress) == cut
    assert upload(second, made).state is KernelState.VALIDATING
    assert {role: second.read_library(made.artifact_id, role) for role in ROLES} == made.libraries


def test_an_upload_whose_last_byte_had_come_is_finished_at_the_start(
    tmp_path: Path, store: Store, world: World
) -> None:
    """Nobody need ask again."""
    made = make()
    first = library(tmp_path / "run", store, world)
    first.create_upload(made.manifest, made.signature, "tezzeret")
    for role, data in made.libraries.items():
        first.add_chunk(made.artifact_id, role, 0, data)
    first.close()
    second = library(tmp_path / "run", store, world)
    assert second.kernels[made.artifact_id].state is KernelState.VALIDATING
    assert list((tmp_path / "run" / UPLOADS_NAME).iterdir()) == []


def test_two_clients_with_the_same_kernel(run: Library) -> None:
    """Their chunks become one kernel, whoever sends which, also after it is complete."""
    made, dice = make(), random.Random(7)
    for _ in range(2):
        run.create_upload(made.manifest, made.signature, "tezzeret")
    at = [dict.fromkeys(ROLES, 0), dict.fromkeys(ROLES, 0)]
    while any(client[role] < len(made.libraries[role]) for client in at for role in ROLES):
        client, role = dice.choice(at), dice.choice(ROLES)
        data = made.libraries[role][client[role] : client[role] + dice.randrange(1, 900)]
        if data:
            run.add_chunk(made.artifact_id, role, client[role], data)
            client[role] += len(data)
        run.finish(made.artifact_id)
    assert run.kernels[made.artifact_id].state is KernelState.VALIDATING
    assert {role: run.read_library(made.artifact_id, role) for role in ROLES} == made.libraries


def test_an_uploader_that_lies(run: Library, store: Store) -> None:
    """Other bytes than the manifest names: dropped, told, nothing in the store; the next upload begins anew."""
    made = make()
    run.create_upload(made.manifest, made.signature, "tezzeret")
    for role, data in made.libraries.items():
        run.add_chunk(made.artifact_id, role, 0, data if role is F else bytes(len(data)))
    assert refusal(lambda: run.finish(made.artifact_id)).reason == "KERNEL_CORRUPT"
    assert run.kernels[made.artifact_id].state is KernelState.REMOVED
    assert run.take_changes()[-1].cause is Cause.CORRUPT
    assert store.folders() == {}
    assert refusal(lambda: run.add_chunk(made.artifact_id, F, 0, b"x")).reason == "KERNEL_UPLOAD_UNKNOWN"
    assert upload(run, made).state is KernelState.VALIDATING


def test_more_bytes_than_the_manifest_says(run: Library) -> None:
    """They never reach the disk."""
    made = make()
    run.create_upload(made.manifest, made.signature, "tezzeret")
    error = refusal(lambda: run.add_chunk(made.artifact_id, F, 0, made.libraries[F] + b"x"))
    assert error.reason == "KERNEL_CORRUPT"
    assert received(run, made) == [0, 0, 0]
    assert refusal(lambda: run.add_chunk(made.artifact_id, KernelFileRole.UNSPECIFIED, 0, b"x")).reason == (
        "KERNEL_CORRUPT"
    )


def test_who_may_not_begin(run: Library, world: World) -> None:
    """Manifests are read, and their signatures proven, before a byte is taken."""
    made = make()
    assert refusal(lambda: run.create_upload(b"\xff", made.signature, "x")).reason == "KERNEL_MANIFEST_INVALID"
    stranger = replace(made.signature, key_id="nobody")
    assert refusal(lambda: run.create_upload(made.manifest, stranger, "x")).reason == "KERNEL_SIGNATURE_INVALID"
    assert refusal(lambda: run.add_chunk(made.artifact_id, F, 0, b"x")).reason == "KERNEL_UPLOAD_UNKNOWN"
    assert refusal(lambda: run.finish(made.artifact_id)).reason == "KERNEL_UNKNOWN"
    assert run.kernels == {}


def test_what_is_there_is_given_as_it_is(run: Library) -> None:
    """An upload of an OFFERED kernel has nothing to send."""
    made = make()
    offered(run, made)
    again = run.create_upload(made.manifest, made.signature, "tibalt")
    assert (again.state, again.principal, again.is_complete) == (KernelState.OFFERED, "tezzeret", True)
    assert run.add_chunk(made.artifact_id, F, 0, b"anything").state is KernelState.OFFERED


def test_a_key_that_counts_replaces_one_that_does_not(run: Library, world: World) -> None:
    """A kernel whose compiler's key was revoked is taken up again when another one vouches for it."""
    made = make()
    offered(run, made)
    world.keys = [OTHER_COMPILER]
    run.rescan()
    kernel = run.kernels[made.artifact_id]
    assert (kernel.state, kernel.detail) == (KernelState.QUARANTINED, "the key compiler-1 is unknown")
    again = run.create_upload(made.manifest, sign(made.manifest, OTHER_COMPILER), "tibalt")
    assert again.state is KernelState.OFFERED
    assert again.documents.manifest_signature.key_id == OTHER_COMPILER.key_id


def test_a_key_is_revoked_in_the_middle_of_its_upload(run: Library, world: World) -> None:
    """Another key goes on with what has come."""
    made = make()
    run.create_upload(made.manifest, made.signature, "tezzeret")
    run.add_chunk(made.artifact_id, F, 0, made.libraries[F])
    world.keys = [OTHER_COMPILER]
    other = Made(made.manifest, made.libraries, sign(made.manifest, OTHER_COMPILER))
    kernel = run.create_upload(other.manifest, other.signature, "tibalt")
    assert kernel.progress[0].num_received == len(made.libraries[F])
    assert upload(run, other).documents.manifest_signature.key_id == OTHER_COMPILER.key_id
    assert COMPILER not in world.keys


def test_a_part_that_was_lost(tmp_path: Path, world: World) -> None:
    """Someone removed the file under an upload: it is found out, and begun again."""
    run = library(tmp_path / "run", open_store("", tmp_path / "store"), world)
    made = make()
    run.create_upload(made.manifest, made.signature, "tezzeret")
    run.add_chunk(made.artifact_id, F, 0, made.libraries[F])
    (tmp_path / "run" / UPLOADS_NAME / made.artifact_id / "forward.part").unlink()
    with pytest.raises(EsperdError, match="has 0 bytes"):
        upload(run, made)
    assert upload(run, made).state is KernelState.VALIDATING


def test_too_large_or_no_room(tmp_path: Path, store: Store, world: World) -> None:
    """Refused before a byte is sent; nothing goes for a kernel that would not fit anyway."""
    run = library(tmp_path / "run", store, world, quota_bytes=25_000, max_kernel_bytes=20_000)
    error = refusal(lambda: upload(run, make(1, 7000)))
    assert error.reason == "KERNEL_QUOTA"
    assert "one may have 20000 bytes" in error.message
    first, second, third = (make(seed) for seed in (1, 2, 3))
    offered(run, first)
    offered(run, second)
    error = refusal(
        lambda: run.create_upload(third.manifest, third.signature, "x", {first.artifact_id, second.artifact_id})
    )
    assert error.reason == "KERNEL_QUOTA"
    assert {k.state for k in run.kernels.values()} == {KernelState.OFFERED}
    world.now_unix_s += 100
    run.retain({first.artifact_id})
    upload(run, third)
    assert run.kernels[first.artifact_id].state is KernelState.OFFERED
    gone = run.kernels[second.artifact_id]
    assert (gone.state, "full" in gone.detail) == (KernelState.REMOVED, True)
    assert run.stored_bytes == first_bytes(first) + first_bytes(third)


def first_bytes(made: Made) -> int:
    return sum(map(len, made.libraries.values()))


def test_a_flood_of_uploads(run: Library, world: World) -> None:
    """Small ones take nothing of the quota, and are bounded all the same while they are new."""
    for seed in range(MAX_OWN_UPLOADS):
        made = make(seed, 1)
        run.create_upload(made.manifest, made.signature, "tezzeret")
        world.now_unix_s += 1.0
    more = make(MAX_OWN_UPLOADS, 1)
    error = refusal(lambda: run.create_upload(more.manifest, more.signature, "tezzeret"))
    assert (error.reason, error.metadata["detail"]) == ("KERNEL_QUOTA", "tezzeret has 16 uploads open already")
    first = make(0, 1)
    run.create_upload(first.manifest, first.signature, "tezzeret")  # going on with one is no other one
    world.now_unix_s += IDLE_UPLOAD_S
    assert run.create_upload(more.manifest, more.signature, "tezzeret").state is KernelState.UPLOADING
    assert run.kernels[first.artifact_id].state is KernelState.REMOVED
