"""Who is at the other end of a connection, in one line: the transport's name and, over TLS, the certificate's.

Event loop only, on the path of every call.
"""

from typing import Any

from esperd.leyline.peers import UNIX, is_unix

MAX_NAME_CHARS = 128
_UNIX_SCHEMES = (UNIX, "unix-abstract:")
"""A name that a client has given its own end says nothing, and would make one caller many: all are `UNIX`."""
_NAMES = (
    ("peer_spiffe_id", "id"),
    ("x509_common_name", "cn"),
    ("peer_dns", "dns"),
    ("peer_uri", "uri"),
    ("peer_email", "email"),
    ("x509_subject_alternative_name", "san"),
)
"""What a certificate may be called by, and how it is shown; the first that it has."""


def peer_of(context: Any) -> str:
    """`unix:`, `ipv4:127.0.0.1:40020`, or over TLS `ipv4:10.0.0.7:40020 cn=policy-1`."""
    peer: str = context.peer()
    if peer.startswith(_UNIX_SCHEMES):
        return UNIX
    name = certificate_name(context.auth_context())
    return f"{peer} {name}" if name else peer


def certificate_name(facts: "dict[str, list[bytes]]") -> str:
    """`cn=NAME` of what gRPC knows of a peer; empty without a certificate."""
    for field, label in _NAMES:
        values = facts.get(field)
        if values and values[0]:
            return f"{label}={_in_one_word(values[0])}"
    return ""


def source_of(peer: str) -> str:
    """The peer without what changes from one of its connections to the next: its certificate, else its host."""
    address, _, name = peer.partition(" ")
    return name or (address if is_unix(address) else address.rpartition(":")[0])


def _in_one_word(raw: bytes) -> str:
    """A certificate's name may hold anything that its CA has signed; a line of the log or of the audit may not."""
    text = raw[:MAX_NAME_CHARS].decode("utf-8", "replace")
    return "".join(character if character.isprintable() and not character.isspace() else "_" for character in text)
