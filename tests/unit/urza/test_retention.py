"""Which kernels may go."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from esperd.leyline.kernel_documents import read_manifest
from esperd.leyline.kernels import KernelDocuments
from esperd.leyline.vocabulary import KernelState
from esperd.urza.retention import (
    IDLE_UPLOAD_S,
    MAX_KERNELS,
    MAX_OWN_UPLOADS,
    MAX_REMOVED,
    REMOVED_KEEP_S,
    UPLOAD_KEEP_S,
    crowding,
    forgettable,
    leaving,
)
from esperd.urza.stored import Cause, LibraryLimits, StoredKernel
from tests.unit.urza.samples import make

MADE = [make(seed, num_bytes) for seed, num_bytes in enumerate((100, 100, 500, 2000, 50, 900))]
NOW_S = 1e9


def kernel(number: int, state: KernelState, age_s: float = 0.0, pinned: bool = False) -> StoredKernel:
    made = MADE[number]
    return StoredKernel(
        manifest=read_manifest(made.manifest),
        documents=KernelDocuments(made.manifest, made.signature),
        state=state,
        create_unix_s=NOW_S - age_s,
        update_unix_s=NOW_S - age_s,
        last_use_unix_s=NOW_S - age_s,
        pinned=pinned,
    )


STATES = st.sampled_from([state for state in KernelState if state >= KernelState.UPLOADING])
KERNELS = st.tuples(
    *(st.builds(kernel, st.just(i), STATES, st.floats(0, 3 * UPLOAD_KEEP_S), st.booleans()) for i in range(len(MADE)))
)


@given(
    KERNELS, st.integers(0, 12_000), st.floats(0, 2 * UPLOAD_KEEP_S), st.integers(0, 5000), st.sets(st.integers(0, 5))
)
def test_what_leaves(
    kernels: tuple[StoredKernel, ...], quota_bytes: int, keep_s: float, needed_bytes: int, used: set[int]
) -> None:
    """Never what is pinned or in use; nothing that need not; the quota is kept when it can be."""
    in_use = {kernels[i].artifact_id for i in used}
    going = leaving(kernels, LibraryLimits(quota_bytes, keep_s, 1 << 20), in_use, NOW_S, needed_bytes)
    gone = {k.artifact_id for k, _ in going}
    assert len(gone) == len(going)
    for k, cause in going:
        assert k.state is not KernelState.REMOVED
        assert (k.state is KernelState.UPLOADING) == (cause is Cause.ABANDONED)
        if cause is not Cause.ABANDONED:
            assert not k.pinned
            assert k.artifact_id not in in_use
        if cause is Cause.AGE:
            assert keep_s > 0
    staying = [k for k in kernels if k.artifact_id not in gone]
    excess = sum(k.num_bytes for k in staying) + needed_bytes - quota_bytes
    if excess > 0:
        assert all(k.pinned or k.artifact_id in in_use or not k.is_stored for k in staying)
    by_quota = [k for k, cause in going if cause is Cause.QUOTA]
    if by_quota:
        assert excess + by_quota[-1].num_bytes > 0
        useful = [k for k in by_quota if k.state is not KernelState.QUARANTINED]
        assert useful == sorted(useful, key=lambda k: (k.last_use_unix_s, k.artifact_id))


def test_what_nobody_may_use_goes_first() -> None:
    """A quarantined kernel before one that is older and good."""
    good, bad = kernel(0, KernelState.OFFERED, 1000), kernel(1, KernelState.QUARANTINED, 0)
    limits = LibraryLimits(good.num_bytes, 0, 1 << 20)
    assert leaving([good, bad], limits, (), NOW_S) == [(bad, Cause.QUOTA)]


def test_what_is_forgotten() -> None:
    """What is gone for long, or too many of those."""
    fresh, old = kernel(0, KernelState.REMOVED), kernel(1, KernelState.REMOVED, REMOVED_KEEP_S + 1)
    assert forgettable([fresh, old, kernel(2, KernelState.OFFERED, REMOVED_KEEP_S + 1)], NOW_S) == [old]
    many = [kernel(0, KernelState.REMOVED, age_s) for age_s in range(MAX_REMOVED + 2)]
    assert [k.update_unix_s for k in forgettable(many, NOW_S)] == [NOW_S - MAX_REMOVED - 1, NOW_S - MAX_REMOVED]


def test_there_are_only_so_many() -> None:
    """However small they are: those least worth their place leave for another one."""
    many = [kernel(0, KernelState.QUARANTINED, age_s) for age_s in range(MAX_KERNELS)]
    limits = LibraryLimits(1 << 40, 0, 1 << 20)
    assert leaving(many, limits, (), NOW_S) == []
    assert leaving(many, limits, (), NOW_S, needed_bytes=1) == [(many[-1], Cause.QUOTA)]


def test_one_principal_may_have_so_many_uploads_open() -> None:
    """Another one waits until one of them has ended, or nobody goes on with it."""
    own = [replace(kernel(0, KernelState.UPLOADING, age_s), principal="tezzeret") for age_s in range(MAX_OWN_UPLOADS)]
    assert crowding(own[1:], "tezzeret", NOW_S) == (None, "")
    assert crowding(own, "tibalt", NOW_S) == (None, "")
    assert crowding(own, "tezzeret", NOW_S) == (None, "tezzeret has 16 uploads open already")
    assert crowding(own, "tezzeret", NOW_S + IDLE_UPLOAD_S) == (own[-1], "")
