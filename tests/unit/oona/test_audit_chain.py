"""The audit chain as pure functions."""

import dataclasses
from typing import Any

import pytest

from esperd.oona.audit_chain import GENESIS_HASH, row_hash, verify
from esperd.oona.records import AuditEntry, AuditRow
from tests.unit.oona.samples import audit


def chain(num_rows: int) -> list[AuditRow]:
    rows: list[AuditRow] = []
    previous = GENESIS_HASH
    for number in range(1, num_rows + 1):
        entry = audit(str(number))
        rows.append(AuditRow(number, number, entry, previous, row_hash(previous, number, entry)))
        previous = rows[-1].row_hash
    return rows


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(AuditEntry)])
def test_every_field_is_covered(field: str) -> None:
    """Changing any field of an entry changes the hash of its row."""
    entry = audit()
    changed: Any = {"payload_sha256": bytes(32), "unix_s": 0.0}.get(field, "changed")
    other = dataclasses.replace(entry, **{field: changed})
    assert row_hash(GENESIS_HASH, 1, entry) != row_hash(GENESIS_HASH, 1, other)


def test_text_cannot_move_between_fields() -> None:
    """Each field goes in with its length, so that two entries never share the bytes that are hashed."""
    entry = audit()
    moved = dataclasses.replace(entry, principal=entry.principal + "x", key_id=entry.key_id[1:])
    shifted = dataclasses.replace(entry, principal="a", key_id="bc")
    other = dataclasses.replace(entry, principal="ab", key_id="c")
    assert len({row_hash(GENESIS_HASH, 1, one) for one in (entry, moved, shifted, other)}) == 4


def test_a_whole_chain_is_intact_and_a_broken_one_names_its_row() -> None:
    """Verification stops at the first row that does not fit."""
    rows = chain(5)
    assert verify(rows).intact
    assert verify(rows[:3]).head_hash == rows[2].row_hash
    assert verify([]).head_hash == GENESIS_HASH
    assert verify(rows[:1] + rows[2:]).first_bad_number == 2
    assert verify(rows[1:]).first_bad_number == 1
    assert verify(rows[1:], 2, rows[0].row_hash).intact
    assert verify(rows[1:], 2, previous_hash=None).intact
    assert not verify(rows[1:], 2).intact
    forged = dataclasses.replace(rows[0], previous_hash=bytes([1]) * 32)
    assert verify([forged, *rows[1:]]).first_bad_number == 1


def test_a_row_forged_with_its_own_hash_breaks_the_next() -> None:
    """Computing the hash of a changed row anew does not help the forger."""
    rows = chain(3)
    entry = dataclasses.replace(rows[1].entry, detail="nothing")
    rows[1] = dataclasses.replace(rows[1], entry=entry, row_hash=row_hash(rows[1].previous_hash, 2, entry))
    assert verify(rows).first_bad_number == 3
