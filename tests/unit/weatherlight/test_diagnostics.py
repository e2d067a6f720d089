"""What a maintainer sees of a daemon, and what nobody sees."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from esperd.config.origin import load_configuration
from esperd.leyline.views import RunView
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.failures import JournalUnavailable
from esperd.oona.journal import Page
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.records import CommandQuery, CommandRecord
from esperd.weatherlight import diagnostics

RUN = RunView("run-1", "digits", TrainerPhase.TRAINING, 100, 2, 1000, 0.5, 0.6, {}, stall="loading")


def test_stacks_name_functions_and_never_values() -> None:
    """Every thread with its name and where it stands; what its variables hold stays with it."""
    hidden = "hunter" + "2"
    has_begun, may_end = threading.Event(), threading.Event()

    def wait_with(secret: str) -> None:
        has_begun.set()
        may_end.wait(10)
        assert secret

    thread = threading.Thread(target=wait_with, args=(hidden,), name="the one that waits")
    thread.start()
    has_begun.wait(10)
    text = diagnostics.thread_stacks(sys._current_frames(), threading.enumerate())
    may_end.set()
    thread.join()
    assert "the one that waits" in text
    assert "in wait_with" in text
    assert "MainThread" in text
    assert hidden not in text


async def test_tasks_are_named_by_what_they_run() -> None:
    """Where each stands; a crowd of them is cut and counted."""
    tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in range(diagnostics.MAX_TASKS + 3)]
    await asyncio.sleep(0)
    try:
        lines = diagnostics.task_places(tasks).splitlines()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert lines[0].startswith("sleep: ")
    assert "tasks.py" in lines[0]
    assert len(lines) == diagnostics.MAX_TASKS + 1
    assert lines[-1] == "and 3 more"


def test_a_section_is_cut_where_it_would_not_fit() -> None:
    """And says how much there was."""
    text = diagnostics.bounded("x" * (diagnostics.MAX_SECTION_CHARS + 1))
    assert text.endswith(f"(cut: {diagnostics.MAX_SECTION_CHARS + 1} characters in all)")
    assert diagnostics.bounded("short") == "short"


async def test_the_dump_has_every_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemon, run, queues, threads, tasks, configuration, journal; what looks like a secret is cut out."""
    for name in diagnostics.COMPILER_MODULES:  # other tests of this process compile
        monkeypatch.delitem(sys.modules, name, raising=False)
    file = tmp_path / "esperd.toml"
    file.write_text('[run]\ntask = "a:b"\n[run.task_options]\npassword = "hunter2"\n')
    journal = MemoryJournal()
    sections = {
        one.title: one.text
        for one in await diagnostics.diagnose(
            configuration=load_configuration(file),
            run=RUN,
            depths={"commands for the trainer": 3},
            journal=journal,
            facts={"id": "esperd-test"},
        )
    }
    await journal.close()
    assert list(sections) == ["daemon", "run", "queues", "threads", "tasks", "configuration", "journal"]
    assert "esperd-test" in sections["daemon"]
    assert "open files" in sections["daemon"]
    assert "compiler modules  none" in sections["daemon"]
    assert "stall      loading" in sections["run"]
    assert sections["queues"] == "commands for the trainer  3"
    assert 'run.task = "a:b"  # file' in sections["configuration"]
    assert "control.max_streams = 256  # default" in sections["configuration"]
    assert not any("hunter2" in text for text in sections.values())
    assert sections["journal"].startswith("revision 0, 0 writes under way")


class SilentJournal(MemoryJournal):
    """One whose disk hangs."""

    async def list_commands(
        self, query: CommandQuery, page_size: int = 100, page_token: str = ""
    ) -> Page[CommandRecord]:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


async def test_a_journal_that_does_not_answer_leaves_the_rest() -> None:
    """It is in trouble that a dump is asked for."""
    journal = SilentJournal()
    assert "did not answer" in await diagnostics.journal_section(journal, within_s=0.01)
    await journal.close()


class BrokenJournal(MemoryJournal):
    """One whose file cannot be read any more."""

    async def list_commands(
        self, query: CommandQuery, page_size: int = 100, page_token: str = ""
    ) -> Page[CommandRecord]:
        raise JournalUnavailable("disk I/O error")


async def test_a_journal_that_cannot_be_read_is_told_as_such() -> None:
    """With the error's own words."""
    journal = BrokenJournal()
    assert "disk I/O error" in await diagnostics.journal_section(journal)
    await journal.close()
