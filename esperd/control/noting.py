"""Who asks what of the daemon itself, and why, as a line of the log.

Event loop only. The audit log has the same but for the reason, which is in the signed payload alone.
"""

import structlog

from esperd.control.call import Call


def note(log: structlog.stdlib.BoundLogger, call: Call, reason: str) -> None:
    """Note one signed call."""
    method = call.method.rpartition("/")[2]
    log.info("asked of the daemon", method=method, principal=call.signer.principal, reason=reason)
