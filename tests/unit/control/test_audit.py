"""The audit trail: each kind of refusal at once, those alike as a number."""

from esperd.control.audit import MAX_KINDS, MAX_UNPROVEN, UNPROVEN_PER_PERIOD, AuditTrail
from esperd.oona.records import AuditEntry


def entry(decision: str = "SIGNATURE_INVALID", peer: str = "unix:", principal: str = "") -> AuditEntry:
    return AuditEntry(principal, "k", peer, "/m", b"", decision, "wrong signature", 1.0)


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


def test_refusals_of_the_proven_are_bounded() -> None:
    """Beyond the bound all others share one row a period."""
    rows: list[AuditEntry] = []
    trail = AuditTrail(rows.append)
    for number in range(MAX_KINDS + 500):
        trail.refused(entry(peer=f"peer-{number}", principal="policy"))
    trail.close_period()
    assert len(rows) == MAX_KINDS + 1


def test_who_invents_names_does_not_fill_the_disk() -> None:
    """Names that nobody has proven are rows of their own for a while, then a few a second and the number of the rest.

    And they take no room from those who have proven theirs.
    """
    rows: list[AuditEntry] = []
    trail = AuditTrail(rows.append)
    for period in range(10):
        for number in range(1000):
            trail.refused(entry(peer=f"peer-{period}-{number}"))
        trail.close_period()
    assert len(rows) <= MAX_UNPROVEN + 10 * (UNPROVEN_PER_PERIOD + 1)
    assert rows[-1].detail.startswith("996 more like this")
    trail.refused(entry("PERMISSION_REQUIRED", principal="policy"))
    assert rows[-1].principal == "policy"
