"""Group commit: what shares a commit, and who hears of what."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from esperd.oona.failures import JournalUnavailable
from esperd.oona.group_commit import GroupCommit

Write = Callable[[list[int]], object]


class Disk:
    """Keeps what each commit wrote, and can refuse."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.full = False

    def commit(self, writes: Sequence[Write]) -> list[object]:
        if self.full:
            raise JournalUnavailable("no space")
        written: list[int] = []
        answers = [write(written) for write in writes]
        self.groups.append(written)
        return answers


@pytest.fixture
async def executor() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


def put(number: int) -> Callable[[list[int]], int]:
    def write(written: list[int]) -> int:
        written.append(number)
        return number * 10

    return write


async def test_what_is_asked_for_in_one_turn_shares_a_commit(executor: ThreadPoolExecutor) -> None:
    """Writes of one turn of the loop are one group, in order, each with its own answer."""
    disk = Disk()
    group = GroupCommit(executor, disk.commit)
    assert await asyncio.gather(*(group.run(put(number)) for number in range(5))) == [0, 10, 20, 30, 40]
    assert disk.groups == [[0, 1, 2, 3, 4]]


async def test_what_is_asked_for_during_a_commit_shares_the_next(executor: ThreadPoolExecutor) -> None:
    """While one commit runs, everything else gathers for the one after it."""
    disk = Disk()
    group = GroupCommit(executor, disk.commit)
    gate = asyncio.get_running_loop().create_future()
    late: list[asyncio.Task[int]] = []

    async def first() -> int:
        answer = await group.run(put(0))
        gate.set_result(None)
        return answer

    def slow(written: list[int]) -> int:
        # On the writer thread: the loop goes on meanwhile, and asks for more.
        asyncio.run_coroutine_threadsafe(ask_for_more(), loop).result()
        written.append(1)
        return 10

    async def ask_for_more() -> None:
        late.extend(asyncio.ensure_future(group.run(put(number))) for number in (2, 3))
        await asyncio.sleep(0)
        assert group.num_pending == 2

    loop = asyncio.get_running_loop()
    await first()
    await gate
    assert await group.run(slow) == 10
    assert await asyncio.gather(*late) == [20, 30]
    assert disk.groups == [[0], [1], [2, 3]]
    assert group.num_pending == 0


async def test_each_caller_of_a_failed_group_gets_its_own_error(executor: ThreadPoolExecutor) -> None:
    """All writes of the group fail, and the next group can succeed."""
    disk = Disk()
    group = GroupCommit(executor, disk.commit)
    disk.full = True
    first, second = await asyncio.gather(group.run(put(0)), group.run(put(1)), return_exceptions=True)
    assert isinstance(first, JournalUnavailable)
    assert isinstance(second, JournalUnavailable)
    assert first is not second
    disk.full = False
    assert await group.run(put(2)) == 20
    assert disk.groups == [[2]]
