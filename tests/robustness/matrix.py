"""Which crashes the matrix makes: every kind of command with every failpoint, as far as the two meet at all.

A cell's first start crashes at the failpoint once the first command of the kind is about to take effect. Where the
failpoint does not lie on that command's own way, it is the next pass of it that crashes: a step or a few later.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.robustness.crashing_daemon import Crash
from tests.robustness.script import ACTS, REQUESTS, Ask

FAILPOINTS = (
    "journal.before_fsync",
    "journal.after_fsync",
    "accept.before_answer",
    "apply.before",
    "apply.after",
    "surgery.middle",
    "outcome.before_settle",
    "checkpoint.writing",
    "checkpoint.before_manifest",
    "checkpoint.before_rename",
    "checkpoint.after_rename",
    "rollback.prepared",
    "rollback.restoring",
    "rollback.confirmed",
    "drain.begun",
    "drain.before_final_checkpoint",
    "resume.restored",
    "terminated",
)
"""The places; `checkpoint.writing` stands for the writing of every file of a checkpoint, and `terminated` for none at
all: the daemon is told to end, and ends as it should."""

KINDS = tuple(dict.fromkeys(request.kind for request in REQUESTS.values()))
"""Every kind of command in the script, in its order."""

_LABELS = {kind: next(label for label, request in REQUESTS.items() if request.kind == kind) for kind in KINDS}
_LABELS["lr_host"] = "rate-host"  # the first one of the kind never takes effect
_SUBMITTED = [request.label for act in ACTS for request in act if isinstance(request, Ask)]
_TERMINATED = ("drain.", "terminated")
_NO_MORE = ("rollback.", "surgery.")
"""What no longer comes once the run has been told to stop."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One crash of the matrix."""

    kind: str
    failpoint: str

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.kind}-{self.failpoint}"

    def crashes(self) -> list[Crash]:
        """What becomes of the first starts."""
        action = "kill" if (KINDS.index(self.kind) + FAILPOINTS.index(self.failpoint)) % 3 == 0 else "exit"
        label = _LABELS[self.kind]
        if self.failpoint == "resume.restored":
            return [Crash("apply.after", armed_by=_armed_by(label)), Crash(self.failpoint, action=action)]
        if self.failpoint == "accept.before_answer" and label in _SUBMITTED:
            return [Crash(self.failpoint, hit=_SUBMITTED.index(label) + 1, action=action)]
        terminates = self.failpoint.startswith(_TERMINATED)
        return [Crash(self.failpoint, action=action, armed_by=_armed_by(label), terminates=terminates)]


def _armed_by(label: str) -> str:
    """A cancellation is applied nowhere: the one of the script is the first thing that happens while the run stands."""
    return "" if REQUESTS[label].kind == "cancel_command" else label


def whole_matrix() -> Iterator[Cell]:
    """Every cell."""
    for kind in KINDS:
        for failpoint in FAILPOINTS:
            if kind == "stop" and failpoint.startswith(_NO_MORE):
                continue
            if kind == "cancel_command" and failpoint.startswith(_TERMINATED):
                continue  # nothing arms it
            yield Cell(kind, failpoint)


def diagonals() -> Iterator[Cell]:
    """A selection in which every kind and every failpoint comes twice at least."""
    cells = list(whole_matrix())
    for number, kind in enumerate(KINDS):
        own = [cell for cell in cells if cell.kind == kind]
        yield own[number % len(own)]
    for number, failpoint in enumerate(FAILPOINTS):
        own = [cell for cell in cells if cell.failpoint == failpoint]
        yield own[(5 * number + 2) % len(own)]
