"""The kernels that are open: a bounded number, the longest unused first out, never one that a seed uses."""

from hypothesis import given
from hypothesis import strategies as st

from esperd.kasmina.kernels.cache import KernelCache
from esperd.kasmina.kernels.kernel import Kernel
from tests.unit.kasmina.kernels.made import linear_kernel


class Shelf:
    """A cache, what is in use, and what has left."""

    def __init__(self, max_bytes: int = 1 << 30, max_kernels: int = 3, ttl_s: float = 60.0) -> None:
        self.used: set[str] = set()
        self.closed: list[tuple[str, str]] = []
        self.cache = KernelCache(
            max_bytes=max_bytes,
            max_kernels=max_kernels,
            ttl_s=ttl_s,
            in_use=lambda: self.used,
            on_closed=lambda artifact_id, cause: self.closed.append((artifact_id, cause)),
        )


def kernel(artifact_id: str) -> Kernel:
    return linear_kernel(artifact_id=artifact_id)


def test_the_longest_unused_makes_room():
    """By count; looking at one counts as use."""
    shelf = Shelf()
    for number, name in enumerate("abc"):
        shelf.cache.put(kernel(name), float(number))
    assert shelf.cache.get("a", 3.0) is not None
    shelf.cache.put(kernel("d"), 4.0)
    assert shelf.closed == [("b", "room")]
    assert shelf.cache.get("b", 5.0) is None


def test_bytes_count_too():
    """Two kernels fit, three do not."""
    num_bytes = kernel("a").resident_bytes
    shelf = Shelf(max_bytes=2 * num_bytes, max_kernels=10)
    for name in "abc":
        shelf.cache.put(kernel(name), 0.0)
    assert shelf.closed == [("a", "room")]
    assert shelf.cache.num_bytes == 2 * num_bytes


def test_what_is_in_use_stays_whatever_the_limits_say():
    """Nor does the newest go: somebody has just asked for it."""
    shelf = Shelf(max_kernels=1)
    shelf.used = {"a", "b"}
    for name in "abc":
        shelf.cache.put(kernel(name), 0.0)
    assert not shelf.closed
    assert not shelf.cache.close("a")
    shelf.used = {"a"}
    assert shelf.cache.close("b")
    assert shelf.closed == [("b", "asked")]


def test_what_nobody_has_used_for_long_goes_at_an_epochs_end():
    """What a seed uses counts as used up to now."""
    shelf = Shelf(ttl_s=60.0)
    shelf.used = {"a"}
    shelf.cache.put(kernel("a"), 0.0)
    shelf.cache.put(kernel("b"), 0.0)
    shelf.cache.tidy(59.0)
    assert not shelf.closed
    shelf.cache.tidy(60.0)
    assert shelf.closed == [("b", "idle")]
    shelf.used = set()
    shelf.cache.tidy(119.0)
    assert shelf.cache.get("a", 119.0) is not None
    shelf.cache.tidy(200.0)
    assert shelf.closed[-1] == ("a", "idle")


def test_what_has_failed_is_not_taken_in_again():
    """Neither the one that is open nor one that is opened anew."""
    shelf = Shelf()
    shelf.cache.put(kernel("a"), 0.0)
    shelf.cache.fail("a", "it raised")
    assert shelf.closed == [("a", "failed")]
    assert shelf.cache.failure("a") == "it raised"
    shelf.cache.put(kernel("a"), 1.0)
    assert len(shelf.cache) == 0


def test_a_kernel_that_is_there_stays_when_it_is_opened_again():
    """Seeds that share it go on sharing it."""
    shelf = Shelf()
    first = kernel("a")
    shelf.cache.put(first, 0.0)
    shelf.cache.put(kernel("a"), 1.0)
    assert shelf.cache.get("a", 2.0) is first


@given(
    st.lists(st.tuples(st.sampled_from("pgcf"), st.sampled_from("abcdef")), max_size=40),
    st.sets(st.sampled_from("abcdef")),
)
def test_the_limits_hold_and_every_kernel_leaves_at_most_once(moves: list[tuple[str, str]], used: set[str]) -> None:
    """Whatever is asked: no more than allowed beyond those in use and the newest, and nothing in use is closed."""
    shelf = Shelf(max_kernels=2)
    shelf.used = used
    for now, (move, name) in enumerate(moves):
        if move == "p":
            shelf.cache.put(kernel(name), float(now))
        elif move == "g":
            shelf.cache.get(name, float(now))
        elif move == "c":
            shelf.cache.close(name)
        else:
            shelf.cache.fail(name, "it raised")
        spare = [one for one in "abcdef" if one in shelf.cache and one not in used]
        assert len(spare) <= 2
    assert not {name for name, cause in shelf.closed if cause != "failed"} & used
