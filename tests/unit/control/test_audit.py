"""The audit trail: each kind of refusal at once, those alike as a number."""

from esperd.control.audit import MAX_KINDS, AuditTrail
from esperd.oona.records import AuditEntry


def entry(decision: str = "SIGNATURE_INVALID", peer: str = "unix:") -> AuditEntry:
    return AuditEntry("", "k", peer, "/m", b"", decision, "wrong signature", 1.0)


def test_a_flood_of_refusals_is_two_rows_a_period() -> None:
    """The first is written at once, the others as their number."""
    rows: list[AuditEntry] = []
    trail = AuditTrail(rows.append)
    for _ in range(1000):
        trail.refused(entry())
    assert [row.detail for row in rows] == ["wrong signature"]
    trail.close_period()
    assert rows[1].detail == "999 more like this within 1 s: wrong signature"
    trail.refused(entry())
    assert len(rows) == 3


def test_what_was_let_through_is_always_a_row() -> None:
    """Nothing accepted is counted away."""
    rows: list[AuditEntry] = []
    trail = AuditTrail(rows.append)
    for _ in range(10):
        trail.accepted(entry("OK"))
    assert len(rows) == 10


def test_invented_names_do_not_make_rows_without_end() -> None:
    """Beyond the bound all others share one row a period."""
    rows: list[AuditEntry] = []
    trail = AuditTrail(rows.append)
    for number in range(MAX_KINDS + 500):
        trail.refused(entry(peer=f"peer-{number}"))
    trail.close_period()
    assert len(rows) == MAX_KINDS + 1
