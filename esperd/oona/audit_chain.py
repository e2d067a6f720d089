"""The audit chain: each row's hash covers its own entry and the hash of the row before.

Pure functions. A changed, removed, added or moved row breaks the chain from there on. A cut-off tail leaves a shorter
chain that is intact; whoever wants to detect that notes the head hash elsewhere.
"""

import hashlib
import struct
from collections.abc import Iterable

from esperd.oona.records import AuditEntry, AuditRow, AuditVerdict

GENESIS_HASH = bytes(32)
"""What the first row has in place of the hash before it."""

_DOMAIN = b"ESPER-JOURNAL-AUDIT-V1\0"


def row_hash(previous_hash: bytes, number: int, entry: AuditEntry) -> bytes:
    """SHA-256 over the hash before, the row's number and every field, each text with its length before it."""
    digest = hashlib.sha256(_DOMAIN + previous_hash + struct.pack(">Qd", number, entry.unix_s))
    texts = (entry.principal, entry.key_id, entry.peer, entry.method, entry.decision, entry.detail)
    for part in (*(text.encode("utf-8", "surrogatepass") for text in texts), entry.payload_sha256):
        digest.update(struct.pack(">Q", len(part)) + part)
    return digest.digest()


def verify(rows: Iterable[AuditRow]) -> AuditVerdict:
    """Check rows in the order of their numbers; the first one is trusted for the number and hash it builds on."""
    num_rows = 0
    previous: AuditRow | None = None
    for row in rows:
        num_rows += 1
        if not _fits(previous, row):
            return AuditVerdict(False, num_rows, row.row_hash, first_bad_number=row.number)
        previous = row
    return AuditVerdict(True, num_rows, GENESIS_HASH if previous is None else previous.row_hash)


def _fits(previous: AuditRow | None, row: AuditRow) -> bool:
    if previous is not None and (row.number, row.previous_hash) != (previous.number + 1, previous.row_hash):
        return False
    if previous is None and row.number == 1 and row.previous_hash != GENESIS_HASH:
        return False
    return row.row_hash == row_hash(row.previous_hash, row.number, row.entry)
