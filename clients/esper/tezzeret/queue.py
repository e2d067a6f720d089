"""The compiler's list of what is to be done: durable, so that a compiler that was killed goes on where it stood.

The loop thread of `esper tezzeret serve`; a SQLite file in its work directory. Knows neither the daemon nor how a
kernel is compiled. Time is passed in.
"""

import enum
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

MANY_INTERRUPTIONS = 3
"""A job in whose midst the compiler ended so often goes behind all others: it may be what ends it."""
_FIRST_RENEWAL_S = 60.0
_MAX_RENEWAL_S = 86400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    variant_key TEXT PRIMARY KEY,
    variant BLOB NOT NULL,
    blueprint_id TEXT NOT NULL,
    hint_batch INTEGER NOT NULL,
    num_waiting_seeds INTEGER NOT NULL,
    stage TEXT NOT NULL,
    strategy TEXT NOT NULL,
    num_attempts INTEGER NOT NULL,
    num_rounds INTEGER NOT NULL,
    num_interruptions INTEGER NOT NULL,
    not_before_s REAL NOT NULL,
    artifact_id TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT
"""


class Stage(enum.StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    """To be compiled, at `not_before_s` or later."""
    COMPILING = "compiling"
    COMPILED = "compiled"
    """Its kernel lies in the work directory; the daemon does not have it yet."""
    UPLOADED = "uploaded"
    """The daemon has it; whether it is good is the validator's to say."""
    GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a daemon wants compiled."""

    variant_key: str
    variant: bytes
    """A serialised KernelVariant."""
    blueprint_id: str
    hint_batch: int
    num_waiting_seeds: int


@dataclass(frozen=True, slots=True)
class Job:
    """One wish, and what was done about it."""

    variant_key: str
    variant: bytes
    blueprint_id: str
    hint_batch: int
    num_waiting_seeds: int
    stage: Stage
    strategy: str
    """Of its next attempt, or of its last one: `standard` or `conservative`."""
    num_attempts: int
    """Begun so far, those that were interrupted left out."""
    num_rounds: int
    """How often it was wanted again after it was done."""
    num_interruptions: int
    not_before_s: float
    """Unix time before which it is not begun."""
    artifact_id: str
    detail: str
    """How its last attempt failed."""


class Queue:
    """Jobs by the key of their wish. Every change is on disk when its method returns.

    Raises:
        OSError, sqlite3.Error: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._rows = sqlite3.connect(path, isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute("PRAGMA synchronous = FULL")
        self._rows.execute(_SCHEMA)
        self._rows.execute(
            "UPDATE jobs SET stage = ?, num_attempts = num_attempts - 1, num_interruptions = num_interruptions + 1 "
            "WHERE stage = ?",
            (Stage.WAITING, Stage.COMPILING),
        )

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()

    def wish(self, wish: Wish, now_s: float) -> Job:
        """Take a wish down, or that another number of seeds waits for it.

        One that was done already is done again: its kernel was removed since. Each time it waits longer, so that a
        library that is too small does not keep the compiler busy for ever.
        """
        known = self.job(wish.variant_key)
        if known is None:
            self._rows.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, 'standard', 0, 0, 0, 0, '', '')",
                (
                    wish.variant_key,
                    wish.variant,
                    wish.blueprint_id,
                    wish.hint_batch,
                    wish.num_waiting_seeds,
                    Stage.WAITING,
                ),
            )
        elif known.stage is Stage.UPLOADED:
            renewal_s = min(_MAX_RENEWAL_S, _FIRST_RENEWAL_S * 2.0**known.num_rounds)
            self._change(
                wish.variant_key,
                stage=Stage.WAITING,
                num_attempts=0,
                num_rounds=known.num_rounds + 1,
                not_before_s=now_s + renewal_s,
                num_waiting_seeds=wish.num_waiting_seeds,
            )
        elif known.num_waiting_seeds != wish.num_waiting_seeds:
            self._change(wish.variant_key, num_waiting_seeds=wish.num_waiting_seeds)
        found = self.job(wish.variant_key)
        assert found is not None
        return found

    def keep_only(self, keys: Collection[str]) -> list[str]:
        """Forget what nobody wants any more, if it was not begun. Returns the keys."""
        gone = [job.variant_key for job in self.jobs(Stage.WAITING) if job.variant_key not in keys]
        for key in gone:
            self.forget(key)
        return gone

    def next(self, now_s: float) -> Job | None:
        """What to compile first: what most seeds wait for, then what came first."""
        row = self._rows.execute(
            "SELECT * FROM jobs WHERE stage = ? AND not_before_s <= ? "
            "ORDER BY num_interruptions >= ?, num_waiting_seeds DESC, rowid LIMIT 1",
            (Stage.WAITING, now_s, MANY_INTERRUPTIONS),
        ).fetchone()
        return None if row is None else _job(row)

    def next_time_s(self) -> float | None:
        """Unix time at which the first waiting job may begin; None when none waits."""
        row = self._rows.execute("SELECT min(not_before_s) FROM jobs WHERE stage = ?", (Stage.WAITING,)).fetchone()
        return None if row[0] is None else float(row[0])

    def begin(self, variant_key: str) -> None:
        """An attempt begins."""
        self._rows.execute(
            "UPDATE jobs SET stage = ?, num_attempts = num_attempts + 1 WHERE variant_key = ?",
            (Stage.COMPILING, variant_key),
        )

    def interrupted(self, variant_key: str) -> None:
        """The attempt was stopped from outside: it does not count."""
        self._rows.execute(
            "UPDATE jobs SET stage = ?, num_attempts = num_attempts - 1 WHERE variant_key = ?",
            (Stage.WAITING, variant_key),
        )

    def compiled(self, variant_key: str, artifact_id: str) -> None:
        """The attempt made a kernel."""
        self._change(variant_key, stage=Stage.COMPILED, artifact_id=artifact_id, detail="", num_interruptions=0)

    def again(self, variant_key: str, detail: str, *, strategy: str, not_before_s: float) -> None:
        """The attempt failed, and another follows."""
        self._change(variant_key, stage=Stage.WAITING, detail=detail, strategy=strategy, not_before_s=not_before_s)

    def give_up(self, variant_key: str, detail: str) -> None:
        """No attempt follows."""
        self._change(variant_key, stage=Stage.GIVEN_UP, detail=detail)

    def uploaded(self, variant_key: str) -> None:
        """The daemon has the kernel."""
        self._change(variant_key, stage=Stage.UPLOADED)

    def renew_given_up(self) -> int:
        """Have everything that was given up tried anew, from its first attempt on. Returns how many."""
        changed = self._rows.execute(
            "UPDATE jobs SET stage = ?, strategy = 'standard', num_attempts = 0, not_before_s = 0 WHERE stage = ?",
            (Stage.WAITING, Stage.GIVEN_UP),
        )
        return changed.rowcount

    def forget(self, variant_key: str) -> None:
        """Nothing is to be done about it."""
        self._rows.execute("DELETE FROM jobs WHERE variant_key = ?", (variant_key,))

    def job(self, variant_key: str) -> Job | None:
        """One job, None when there is none."""
        row = self._rows.execute("SELECT * FROM jobs WHERE variant_key = ?", (variant_key,)).fetchone()
        return None if row is None else _job(row)

    def jobs(self, *stages: Stage) -> list[Job]:
        """All jobs in these stages, of any without one, as they came."""
        rows = self._rows.execute("SELECT * FROM jobs ORDER BY rowid").fetchall()
        found = [_job(row) for row in rows]
        return [job for job in found if not stages or job.stage in stages]

    def _change(self, variant_key: str, **values: str | int | float) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self._rows.execute(
            f"UPDATE jobs SET {names} WHERE variant_key = ?",
            (*values.values(), variant_key),
        )


def _job(row: tuple[object, ...]) -> Job:
    values = list(row)
    values[5] = Stage(str(row[5]))
    return Job(*values)  # type: ignore[arg-type]  # the schema is strict: each column has the field's type
