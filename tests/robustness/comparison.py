"""Compares what two runs left behind: their final checkpoints, and what became of each request."""

import json
import re
from pathlib import Path
from typing import Any

from tests.robustness.history import History
from tests.robustness.validators import Violations, weights_equal

_OF_THE_CLOCK = ("_ms", "_s", "unix_s")
"""Endings of names whose values are measured times."""


_SPENT = "/trainer/progress/flops"
"""While a run catches up it sends no packets, and measures nothing for them a second time."""
_TIMED = "step_time_ratio"
"""Evidence that is measured time; told, but in a deterministic run decided by nobody."""


def final_checkpoint(folder: Path) -> Path:
    """The directory of a run's last state."""
    manifests = sorted((folder / "run" / "checkpoints").glob("*/*/manifest.json"))
    final = [path for path in manifests if json.loads(path.read_text())["kind"] == "FINAL"]
    assert final, f"no final checkpoint among {[str(path.parent.name) for path in manifests]}"
    return max(final, key=lambda path: _age(path)).parent


def _age(manifest: Path) -> tuple[int, int, float]:
    facts = json.loads(manifest.read_text())
    return facts["timeline"], facts["global_step"], facts["written_unix_s"]


def differences(one: Path, other: Path, history: History, other_history: History) -> Violations:
    """In what the second run differs from the first."""
    left, right = final_checkpoint(one), final_checkpoint(other)
    found = [f"WeightsEqual: {line}" for line in weights_equal(left, right)]
    states = (_state(left, history), _state(right, other_history))
    found += [f"state: {line}" for line in _differing(*states, "")[:20]]
    found += outcome_differences(history, other_history)
    return tuple(found)


def outcome_differences(history: History, other: History) -> list[str]:
    """Requests that ended differently, and transitions and timelines that are not the same."""
    left, right = outcomes(history), outcomes(other)
    found = [f"{name}: {left.get(name)} became {right.get(name)}" for name in sorted(left.keys() | right.keys())
             if left.get(name) != right.get(name)]  # fmt: skip
    pairs = (("transitions", stories(history), stories(other)), ("timelines", branches(history), branches(other)))
    for what, one, two in pairs:
        found += [f"{what}: {line} is missing" for line in one if line not in two]
        found += [f"{what}: {line} is new" for line in two if line not in one]
    return found


def outcomes(history: History) -> dict[str, tuple[object, ...]]:
    """What became of each request."""
    commands = {row.command_id: row for row in history.commands}
    return {
        commands[row.command_id].request_id: (
            row.state,
            row.global_step,
            # One that was to be written when the daemon died is written later, and by then perhaps elsewhere.
            0 if commands[row.command_id].kind == "checkpoint" else row.timeline,
            row.seed_id,
            row.refusal_reason,
        )
        for row in history.outcomes
        if row.command_id in commands and commands[row.command_id].request_id
    }


def stories(history: History) -> list[tuple[object, ...]]:
    """Every transition, with the request that caused it."""
    names = {row.command_id: row.request_id for row in history.commands}
    return [
        (row.timeline, row.global_step, row.seed_id, row.source, row.target, names.get(row.cause, row.cause))
        for row in history.transitions
    ]


def branches(history: History) -> list[tuple[object, ...]]:
    """Every timeline, with the request that caused it."""
    names = {row.command_id: row.request_id for row in history.commands}
    return [
        (row.timeline, row.parent, row.fork_step, row.left_step, names.get(row.cause, row.cause),
         row.removed_seed_ids, row.restored_seed_ids)
        for row in history.timelines
    ]  # fmt: skip


def _state(checkpoint: Path, history: History) -> Any:
    """What a checkpoint holds besides tensors, with request ids in place of the command ids, which are drawn."""
    text = (checkpoint / "state.json").read_text()
    names = {row.command_id: row.request_id for row in history.commands}
    return json.loads(re.sub(r"\b[0-9a-f]{8}-\d+\b", lambda found: names.get(found[0], found[0]), text))


def _differing(left: Any, right: Any, path: str) -> list[str]:
    if path.endswith(_OF_THE_CLOCK) or path == _SPENT:
        return []
    if isinstance(left, dict) and isinstance(right, dict):
        if left.get("name") == right.get("name") == _TIMED:
            return []
        return [line for key in sorted(left.keys() | right.keys())
                for line in _differing(left.get(key), right.get(key), f"{path}/{key}")]  # fmt: skip
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [line for index, (a, b) in enumerate(zip(left, right, strict=True))
                for line in _differing(a, b, f"{path}/{index}")]  # fmt: skip
    return [] if left == right else [f"{path}: {left!r} became {right!r}"]
