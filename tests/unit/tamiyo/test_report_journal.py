"""The policy's own journal of field reports survives the policy."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from esper.tamiyo.field_reports import Report, Window
from esper.tamiyo.report_journal import ReportJournal
from hypothesis import given
from hypothesis import strategies as st

WINDOW = Window("run/1", "run", "GERMINATE", "1", "7", "residual_conv", 100, 400, 0.5, 0.5, 0.5)


def report(report_id: str = "run/1") -> Report:
    return Report(
        report_id, "run", "1", "7", "residual_conv", "SUCCESS", 300, 1.5, "1", "kept", metrics={"a": 1.0},
        follow_ups=(("CONSERVATIVE_MODE", "why"),),
    )  # fmt: skip


def test_reading_again_gives_what_is_not_delivered(tmp_path: Path) -> None:
    """Windows stay until reported, reports until stored."""
    path = tmp_path / "state" / "reports.jsonl"
    journal = ReportJournal(path)
    journal.watch(WINDOW)
    journal.close()
    journal = ReportJournal(path)
    assert journal.windows == {"run/1": WINDOW}
    journal.file(report())
    journal.close()
    journal = ReportJournal(path)
    assert (journal.windows, journal.reports) == ({}, {"run/1": report()})
    journal.stored("run/1")
    journal.close()
    journal = ReportJournal(path)
    assert (journal.windows, journal.reports) == ({}, {})
    journal.watch(WINDOW)
    journal.file(report())
    assert (journal.windows, journal.reports) == ({}, {}), "a delivered report never comes back"
    journal.close()


@given(cut=st.integers(0, 10_000))
def test_a_torn_line_loses_only_itself(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever byte the file ends at, what was complete before is there, and the next line can be written."""
    path = tmp_path_factory.mktemp("reports") / "reports.jsonl"
    journal = ReportJournal(path)
    for number in range(4):
        journal.file(report(f"run/{number}"))
    journal.close()
    data = path.read_bytes()
    kept = data[: cut % (len(data) + 1)]
    path.write_bytes(kept)
    again = ReportJournal(path)
    expected = {f"run/{number}" for number in range(kept.count(b"\n"))}
    assert expected <= set(again.reports)
    again.file(report("run/new"))
    again.close()
    last = ReportJournal(path)
    assert expected | {"run/new"} <= set(last.reports)
    last.close()


CHILD = """
import sys
from pathlib import Path
from esper.tamiyo.report_journal import ReportJournal
from tests.unit.tamiyo.test_report_journal import report

journal = ReportJournal(Path(sys.argv[1]))
number = 0
while True:
    journal.file(report(f"run/{number}"))
    print(number, flush=True)
    number += 1
"""


def test_a_killed_policy_loses_no_filed_report(tmp_path: Path) -> None:
    """Kill -9 in the middle of writing: every report that was filed is there afterwards."""
    path = tmp_path / "reports.jsonl"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(20)]
    os.kill(child.pid, signal.SIGKILL)
    told += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    journal = ReportJournal(path)
    assert {f"run/{number}" for number in told} <= set(journal.reports)
    journal.close()


def test_file_is_private_and_plain(tmp_path: Path) -> None:
    """JSON lines of mode 0600; unknown fields of a newer version are left aside."""
    path = tmp_path / "reports.jsonl"
    journal = ReportJournal(path)
    journal.file(report())
    journal.close()
    assert path.stat().st_mode & 0o777 == 0o600
    line = json.loads(path.read_text())
    line["report"]["invented_later"] = 1
    path.write_text(json.dumps(line) + "\n")
    again = ReportJournal(path)
    assert set(again.reports) == {"run/1"}
    again.close()
