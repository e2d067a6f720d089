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


def verify(rows: Iterable[AuditRow], first_number: int = 1) -> AuditVerdict:
    """Check rows in the order of their numbers.

    Args:
        rows: the rows, from `first_number` on.
        first_number: number of the oldest row that must be there; if it is not 1, that row's hash is trusted.
    """
    num_rows, number, head_hash = 0, first_number, GENESIS_HASH
    for row in rows:
        num_rows += 1
        fits_before = row.previous_hash == head_hash or (number == first_number != 1)
        if row.number != number or not fits_before or row.row_hash != row_hash(row.previous_hash, number, row.entry):
            return AuditVerdict(False, num_rows, row.row_hash, first_bad_number=number)
        number, head_hash = number + 1, row.row_hash
    return AuditVerdict(True, num_rows, head_hash)
