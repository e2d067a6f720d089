"""Who is at the other end: the connection and, over TLS, the certificate's name."""

import pytest

from esperd.control.peer import MAX_NAME_CHARS, certificate_name, peer_of, source_of


class Context:
    """What gRPC says of a caller."""

    def __init__(self, peer: str, facts: dict[str, list[bytes]]) -> None:
        self._peer = peer
        self._facts = facts

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._facts


@pytest.mark.parametrize(
    ("peer", "facts", "told"),
    [
        ("unix:", {}, "unix:"),
        ("unix:/tmp/a%20name%20of%20its%20own", {}, "unix:"),
        ("unix-abstract:another", {}, "unix:"),
        ("ipv4:127.0.0.1:40020", {"transport_security_type": [b"insecure"]}, "ipv4:127.0.0.1:40020"),
        ("ipv4:10.0.0.7:1", {"x509_common_name": [b"policy-1"]}, "ipv4:10.0.0.7:1 cn=policy-1"),
        (
            "ipv6:%5B::1%5D:1",
            {"x509_common_name": [b"a"], "peer_spiffe_id": [b"spiffe://lab/p"]},
            "ipv6:%5B::1%5D:1 id=spiffe://lab/p",
        ),
        ("ipv4:10.0.0.7:1", {"x509_common_name": [b""], "peer_dns": [b"p.lab"]}, "ipv4:10.0.0.7:1 dns=p.lab"),
    ],
)
def test_names(peer: str, facts: dict[str, list[bytes]], told: str) -> None:
    """The SPIFFE id, else the common name, else the first alternative name."""
    assert peer_of(Context(peer, facts)) == told


def test_a_name_stays_one_word() -> None:
    """What a CA has signed cannot forge a line, a second name or an endless one."""
    name = certificate_name({"x509_common_name": [b"a b\nc\x1b[2J\xff" + b"x" * 500]})
    assert name.startswith("cn=a_b_c_[2J\N{REPLACEMENT CHARACTER}x")
    assert len(name) <= MAX_NAME_CHARS + 3


def test_the_source_outlives_a_connection() -> None:
    """A caller that connects again is the same caller."""
    assert source_of("unix:") == "unix:"
    assert source_of("ipv4:10.0.0.7:4000") == source_of("ipv4:10.0.0.7:4001") == "ipv4:10.0.0.7"
    assert source_of("ipv4:10.0.0.7:4000 cn=p") == source_of("ipv4:10.0.0.8:1 cn=p") == "cn=p"
