"""What a maintainer needs to see of a running daemon: threads, tasks, queues, configuration, newest rows of journal.

Event loop only. Stacks name functions and lines of source, never values; the configuration is shown without what looks
like a secret; of a command its kind is shown, not its payload.
"""

import asyncio
import os
import platform
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from esperd.config.fields import describe_settings
from esperd.config.origin import Configuration
from esperd.control.supervisor import DiagnosticSection
from esperd.leyline.views import RunView
from esperd.oona.failures import JournalUnavailable
from esperd.oona.journal import Journal
from esperd.oona.records import CommandQuery, HistoryQuery

MAX_TASKS = 200
NUM_COMMANDS = 20
NUM_REVISIONS = 50
"""History rows among so many of the newest revisions of the journal."""
JOURNAL_S = 3.0
"""How long the journal has to answer."""
MAX_SECTION_CHARS = 256 * 1024
"""A dump of a busy daemon still fits into one message."""
_STATUS_LINES = ("VmRSS", "VmHWM", "Threads")
COMPILER_MODULES = (
    "torch._inductor.async_compile",
    "torch._inductor.codecache",
    "torch._inductor.codegen",
    "torch._inductor.compile_fx",
    "torch._inductor.graph",
    "torch._inductor.scheduler",
)
"""What a process has imported that generates code; torch's optimizers import other parts of Inductor and of Dynamo."""


async def diagnose(
    *,
    configuration: Configuration,
    run: RunView,
    depths: Mapping[str, int],
    journal: Journal,
    facts: Mapping[str, str],
) -> tuple[DiagnosticSection, ...]:
    """Look at everything once. `depths` are the lengths of queues, `facts` what else the daemon says of itself."""
    sections = {
        "daemon": pairs({**facts, **process_facts()}),
        "run": pairs(run_facts(run)),
        "queues": pairs(depths),
        "threads": thread_stacks(sys._current_frames(), threading.enumerate()),
        "tasks": task_places(asyncio.all_tasks()),
        "configuration": configuration_lines(configuration),
        "journal": await journal_section(journal),
    }
    return tuple(DiagnosticSection(title, bounded(text)) for title, text in sections.items())


def process_facts() -> dict[str, str]:
    """The process: interpreter, memory, threads and open files, as far as the system tells; compilers in it."""
    facts = {"pid": str(os.getpid()), "python": platform.python_version(), "system": platform.platform()}
    facts["compiler modules"] = ", ".join(name for name in COMPILER_MODULES if name in sys.modules) or "none"
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in _STATUS_LINES:
                facts[name] = value.strip()
        facts["open files"] = str(sum(1 for _ in Path("/proc/self/fd").iterdir()))
    except OSError:
        facts["memory"] = "the system does not tell"
    return facts


def run_facts(run: RunView) -> dict[str, str]:
    """The run at a glance."""
    return {
        "run": run.run_id,
        "phase": run.phase.name,
        "step": str(run.global_step),
        "timeline": str(run.timeline),
        "step time": f"{run.step_ms:.3g} ms",
        "stall": run.stall,
        "failure": run.failure,
    }


def thread_stacks(frames: Mapping[int, FrameType], threads: Iterable[threading.Thread]) -> str:
    """The stack of every thread that runs Python, the innermost call last."""
    names = {thread.ident: thread.name for thread in threads}
    parts = (
        f"{names.get(ident, 'a thread of a library')} ({ident})\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in frames.items()
    )
    return "\n".join(parts)


def task_places(tasks: Iterable["asyncio.Task[Any]"]) -> str:
    """Where each task of the event loop stands."""
    lines = sorted(f"{_name(task)}: {_place(task)}" for task in tasks)
    more = len(lines) - MAX_TASKS
    return "\n".join([*lines[:MAX_TASKS], *([f"and {more} more"] if more > 0 else [])])


def configuration_lines(configuration: Configuration) -> str:
    """Every setting in force, with its origin."""
    names = (one.dotted_name for one in describe_settings())
    lines = (f"{name} = {configuration.shown(name)}  # {configuration.origins[name]}" for name in names)
    return "\n".join([f"# {configuration.path}", *lines])


async def journal_section(journal: Journal, within_s: float = JOURNAL_S) -> str:
    """The journal's newest rows, or why there are none: a dump is asked for when something is wrong."""
    try:
        return await asyncio.wait_for(journal_lines(journal), within_s)
    except TimeoutError:
        return f"the journal did not answer within {within_s:g} s"
    except JournalUnavailable as error:
        return error.message


async def journal_lines(journal: Journal) -> str:
    """The newest commands and history rows, newest first."""
    revision = journal.revision
    commands = await journal.list_commands(CommandQuery(), NUM_COMMANDS)
    history = await journal.list_history(
        HistoryQuery(after_revision=max(0, revision - NUM_REVISIONS)), page_size=NUM_REVISIONS
    )
    lines = [f"revision {revision}, {journal.num_pending} writes under way", "", "commands"]
    lines += [
        f"{_time(row.accepted_unix_s)}  {row.command_id}  {row.kind}  {row.state.name}  {row.principal}"
        for row in commands.rows
    ]
    lines += ["", "history"]
    lines += [f"{row.journal_revision}  {row.kind.name}" for row in reversed(history.rows)]
    return "\n".join(lines)


def pairs(values: Mapping[str, object]) -> str:
    """Names and values, a line each."""
    width = max(map(len, values), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in values.items())


def bounded(text: str) -> str:
    """The text, cut where it would make the dump too large to send."""
    if len(text) <= MAX_SECTION_CHARS:
        return text
    return f"{text[:MAX_SECTION_CHARS]}\n(cut: {len(text)} characters in all)"


def _name(task: "asyncio.Task[Any]") -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", type(coroutine).__name__)


def _place(task: "asyncio.Task[Any]") -> str:
    stack = task.get_stack(limit=1)
    return f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "about to run"


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
