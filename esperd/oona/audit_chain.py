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


def verify(rows: Iterable[AuditRow], first_number: int = 1, previous_hash: bytes | None = GENESIS_HASH) -> AuditVerdict:
    """Check rows in the order of their numbers.

    Args:
        rows: the rows, from `first_number` on.
        first_number: number of the row that must come first.
        previous_hash: hash of the row before that one; None where it is no longer known, and taken as it stands.
    """
    num_rows, head_hash = 0, previous_hash
    for number, row in enumerate(rows, first_number):
        num_rows += 1
        follows = row.number == number and head_hash in (None, row.previous_hash)
        if not follows or row.row_hash != row_hash(row.previous_hash, number, row.entry):
            return AuditVerdict(False, num_rows, row.row_hash, first_bad_number=number)
        head_hash = row.row_hash
    return AuditVerdict(True, num_rows, head_hash or GENESIS_HASH)
