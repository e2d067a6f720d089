"""The policy's own journal of field reports: JSON lines, each durable before it counts.

Policy process; one file per run and policy. Three kinds of line: `window` (a decision under observation), `report` (its
window has closed) and `stored` (the daemon has it). Whatever line the process dies after, reading the file again gives
every report that was not delivered; the daemon takes a report it already has as a duplicate.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from esper.tamiyo.field_reports import Report, Window


class ReportJournal:
    """Open windows and undelivered reports of one run.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.windows: dict[str, Window] = {}
        """By report id: what is still under observation."""
        self.reports: dict[str, Report] = {}
        """By report id: what the daemon does not have yet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._done: set[str] = set()
        self._replay()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._end_torn_line()

    def close(self) -> None:
        """Let go of the file; everything in it is durable already."""
        os.close(self._file)

    def watch(self, window: Window) -> None:
        """Note that a decision is under observation; a second time changes nothing."""
        if window.report_id in self._done or window.report_id in self.windows:
            return
        self._append({"window": asdict(window)})
        self.windows[window.report_id] = window

    def file(self, report: Report) -> None:
        """Note a closed window's report, to be delivered."""
        if report.report_id in self._done:
            return
        self._append({"report": asdict(report)})
        self._take_report(report)

    def stored(self, report_id: str) -> None:
        """Note that nothing remains to be done about a report."""
        self._append({"stored": report_id})
        self.reports.pop(report_id, None)

    def _append(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        written = 0
        while written < len(data):
            written += os.write(self._file, data[written:])
        os.fsync(self._file)

    def _replay(self) -> None:
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # torn by the death of the process that wrote it: it never counted
            self._take(entry)

    def _end_torn_line(self) -> None:
        """A line without its end must not swallow the next one."""
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.write(self._file, b"\n")

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "window" in entry:
            window = Window(**_known(Window, entry["window"]))
            if window.report_id not in self._done:
                self.windows[window.report_id] = window
        elif "report" in entry:
            values = _known(Report, entry["report"])
            values["follow_ups"] = tuple((action, why) for action, why in values.get("follow_ups", ()))
            self._take_report(Report(**values))
        elif "stored" in entry:
            self.reports.pop(entry["stored"], None)

    def _take_report(self, report: Report) -> None:
        self._done.add(report.report_id)
        self.windows.pop(report.report_id, None)
        self.reports[report.report_id] = report


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Only the fields that this version knows: an older policy may read a newer one's file."""
    names = {found.name for found in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
