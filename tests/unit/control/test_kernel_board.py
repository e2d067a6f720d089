"""The rows of kernels: wishes joined with what the library holds, and what watchers are told of."""

from dataclasses import replace
from pathlib import Path

import pytest
from esper.client.kernel_files import KernelFiles
from esper.leyline.v1 import kernel_service_pb2

from esperd.control.kernel_board import FORGOTTEN_S, KernelBoard
from esperd.control.kernel_swaps import misfit
from esperd.control.kernel_wishes import Wish
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import read_manifest
from esperd.leyline.kernels import KernelDocuments, KernelReport, Signature, variant_key
from esperd.leyline.vocabulary import BlueprintTier, HandlingClass, HazardBand, KernelState
from esperd.urza.stored import CompilationReport, StoredKernel
from tests.integration.control.kernel_stage import BATCH, VARIANT, kernel_snapshot, write_kernel

KEY = variant_key(VARIANT, BATCH)
NO_STATES: frozenset[KernelState] = frozenset()


class Clock:
    now_s = 1.8e9

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> KernelBoard:
    """A board that has seen a run with one wish."""
    board = KernelBoard(b"e" * 16, clock)
    assert board.look(kernel_snapshot())
    return board


def stored(files: KernelFiles, state: KernelState, ratio: float = 0.8, **changes: object) -> StoredKernel:
    manifest = read_manifest(files.manifest)
    report = KernelReport(
        manifest.artifact_id,
        "1",
        (),
        2.0,
        1.0,
        ratio,
        ratio,
        0.0,
        1,
        0.0,
        HazardBand.LOW,
        HandlingClass.STANDARD,
        1.8e9,
    )
    documents = KernelDocuments(files.manifest, Signature("k", b"s" * 32))
    kernel = StoredKernel(manifest, documents, state, 1.8e9, 1.8e9 + 1, 1.8e9, report=report)
    return replace(kernel, **changes)  # type: ignore[arg-type]


def shown(board: KernelBoard) -> list[tuple[str, str]]:
    return [(row.artifact_id[:4], row.state.name) for row in board.rows]


def best(board: KernelBoard, wish: Wish) -> str:
    """The kernel that a seed with this wish is given, empty if there is none."""
    row = board.best_for(wish)
    return "" if row is None else row.artifact_id


def told(board: KernelBoard, since: int) -> list[tuple[str, int]]:
    """(artifact id, state) of what a watcher has heard since a revision."""
    parts = [item.data for change in board.feed._history if change.number > since for item in change.items]
    heard = kernel_service_pb2.WatchKernelsResponse.FromString(b"".join(parts))
    return [(kernel.artifact_id, kernel.state) for kernel in heard.kernels]


def test_a_wish_is_over_when_its_kernel_is_on_its_way(board: KernelBoard, tmp_path: Path) -> None:
    """And there again when that is removed; a watcher hears of the kernel, which has the wish's key."""
    board.subscribe(NO_STATES)
    kernel = stored(write_kernel(tmp_path / "k"), KernelState.UPLOADING)
    name = kernel.artifact_id[:4]
    assert shown(board) == [("", "WANTED")]
    board.put(kernel)
    assert shown(board) == [(name, "UPLOADING")]
    assert board.rows[0].variant_key == KEY
    assert board.rows[0].num_waiting_seeds == 1
    board.put(replace(kernel, state=KernelState.OFFERED))
    assert board.rows[0].num_waiting_seeds == 0
    board.put(replace(kernel, state=KernelState.REMOVED))
    assert shown(board) == [("", "WANTED"), (name, "REMOVED")]
    states = [state for _, state in told(board, 0)]
    assert states == [KernelState.UPLOADING, KernelState.OFFERED, KernelState.REMOVED, KernelState.WANTED]


def test_a_wish_that_nobody_has_any_more_is_told_once(board: KernelBoard) -> None:
    """As REMOVED, without an artifact; lists do not show it."""
    board.subscribe(NO_STATES)
    snapshot = kernel_snapshot()
    assert board.look(replace(snapshot, sites=(), seeds=()))
    assert board.rows == []
    assert told(board, 0) == [("", KernelState.REMOVED)]
    assert not board.look(replace(snapshot, sites=(), seeds=()))


def test_what_has_not_changed_is_not_told(board: KernelBoard, tmp_path: Path) -> None:
    """A second look at the same, or a change of the run that is none for kernels, makes no revision."""
    board.subscribe(NO_STATES)
    kernel = stored(write_kernel(tmp_path / "k"), KernelState.OFFERED)
    board.put(kernel)
    revision = board.feed.token.revision
    board.put(kernel)
    snapshot = kernel_snapshot()
    assert not board.look(replace(snapshot, seeds=(replace(snapshot.seeds[0], gradient_norm=2.0),)))
    assert board.feed.token.revision == revision


def test_a_compiler_that_went_silent_is_not_waited_for(board: KernelBoard, clock: Clock) -> None:
    """COMPILING is believed for half an hour."""
    board.compiles(CompilationReport(KEY, KernelState.COMPILING, 1, "", "compiler", clock.now_s))
    assert shown(board) == [("", "COMPILING")]
    clock.now_s += FORGOTTEN_S + 1
    board.tick()
    assert shown(board) == [("", "WANTED")]


def test_what_compilers_said_is_forgotten_with_the_library(board: KernelBoard, clock: Clock) -> None:
    """So that it does not grow with every wish that a run ever had."""
    board.compiles(CompilationReport(KEY, KernelState.COMPILE_FAILED, 1, "no g++", "compiler", clock.now_s))
    board.keep([], [KEY])
    assert board.wish(KEY).state is KernelState.COMPILE_FAILED
    board.keep([], [])
    board.set_resident("ab" * 32, 1)
    assert board.wish(KEY).state is KernelState.WANTED


def test_a_removed_kernel_is_wanted_again(board: KernelBoard, clock: Clock, tmp_path: Path) -> None:
    """At once: that its compiler once said that it works on it is over since the kernel came."""
    board.compiles(CompilationReport(KEY, KernelState.COMPILING, 1, "", "compiler", clock.now_s - 60))
    kernel = stored(write_kernel(tmp_path / "k"), KernelState.OFFERED)
    board.put(kernel)
    board.put(replace(kernel, state=KernelState.REMOVED, update_unix_s=clock.now_s))
    assert board.wish(KEY).state is KernelState.WANTED


def test_a_quarantined_kernel_is_a_failure_of_its_wish(board: KernelBoard, clock: Clock, tmp_path: Path) -> None:
    """Until a compiler tries again."""
    kernel = stored(write_kernel(tmp_path / "k"), KernelState.QUARANTINED, detail="parameter_gradients")
    board.put(kernel)
    wish = board.wish(KEY)
    assert (wish.state, wish.artifact_id) == (KernelState.COMPILE_FAILED, "")
    assert "parameter_gradients" in wish.detail
    board.compiles(CompilationReport(KEY, KernelState.COMPILING, 2, "", "compiler", clock.now_s + 2))
    assert board.wish(KEY).state is KernelState.COMPILING


def test_the_fastest_that_fits_is_the_best(board: KernelBoard, tmp_path: Path) -> None:
    """Offered, of the same variant, and compiled for the batch size; a restricted one is not for a SAFE blueprint."""
    (wish,) = board.needs.wishes.values()
    assert best(board, wish) == ""
    slow = stored(write_kernel(tmp_path / "slow"), KernelState.OFFERED, 0.9)
    fast = stored(write_kernel(tmp_path / "fast"), KernelState.OFFERED, 0.5)
    narrow = stored(write_kernel(tmp_path / "narrow", hint=2, most=4), KernelState.OFFERED, 0.1)
    other = stored(write_kernel(tmp_path / "other", replace(VARIANT, capability="AVX512")), KernelState.OFFERED, 0.1)
    assert fast.report is not None
    restricted = replace(fast.report, handling_class=HandlingClass.RESTRICTED)
    board.put(slow, fast, narrow, other)
    assert best(board, wish) == fast.artifact_id
    board.put(replace(fast, report=restricted))
    assert best(board, wish) == slow.artifact_id
    tried = replace(wish, tier=BlueprintTier.EXPERIMENTAL)
    assert best(board, tried) == fast.artifact_id
    assert best(board, replace(wish, tier=BlueprintTier.UNSPECIFIED)) == slow.artifact_id, "nobody knows it"
    row = board.artifact(fast.artifact_id)
    assert "restricted" in misfit(row, wish), "not even if a client asks for it"
    assert misfit(row, tried) == ""


def test_a_kernel_for_another_batch_size_meets_a_wish_too(board: KernelBoard, tmp_path: Path) -> None:
    """Its compiler, who may still work on the wish, is shown that kernel."""
    kernel = stored(write_kernel(tmp_path / "k", hint=2 * BATCH), KernelState.OFFERED)
    removed = stored(write_kernel(tmp_path / "removed"), KernelState.REMOVED)
    board.put(kernel)
    assert board.wish(KEY).artifact_id == kernel.artifact_id
    board.put(removed)
    assert board.wish(KEY).artifact_id == kernel.artifact_id


def test_names(board: KernelBoard, tmp_path: Path) -> None:
    """An artifact by the beginning of its id, if there is one only; a wish by its key."""
    kernel = stored(write_kernel(tmp_path / "k"), KernelState.OFFERED)
    board.put(kernel)
    assert board.artifact(kernel.artifact_id[:8]).artifact_id == kernel.artifact_id
    assert board.wish(KEY).artifact_id == kernel.artifact_id
    for reason, look in (("KERNEL_UNKNOWN", board.artifact), ("KERNEL_NOT_WANTED", board.wish)):
        with pytest.raises(EsperdError) as caught:
            look("0" * 64)
        assert caught.value.reason == reason
    board.set_resident(kernel.artifact_id, 700)
    assert (board.resident_bytes, board.artifact(kernel.artifact_id).resident) == (700, True)
    board.set_resident(kernel.artifact_id, None)
    assert board.resident_bytes == 0
    board.keep([], [])
    assert shown(board) == [("", "WANTED")]
