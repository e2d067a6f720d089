"""What every connection is held to by gRPC itself: sizes, counts and signs of life.

Pure. Each name here is one that gRPC really reads: it ignores unknown ones without a word, so each has a test that
shows its effect.
"""

from dataclasses import dataclass

from esperd.leyline.verify import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES

_ENVELOPE_BYTES = MAX_HEADER_BYTES + 4096


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of one listening address."""

    max_connections: int = 1024
    """Connections to one address; more are closed as they come."""
    max_streams_per_connection: int = 256
    """Calls and streams in progress on one connection; its client holds back more."""
    max_request_bytes: int = MAX_PAYLOAD_BYTES + _ENVELOPE_BYTES
    """Of one message, after decompression."""
    max_answer_bytes: int = 16 << 20
    max_metadata_bytes: int = 8192
    """Of the headers of one call; up to twice as much is let through now and then, never more."""
    handshake_ms: int = 10_000
    """A connection that has not said hello (TLS, HTTP/2) by then is closed."""
    min_ping_interval_ms: int = 10_000
    """A client that pings more often, while nothing else is sent, is told ENHANCE_YOUR_CALM and cut off."""
    ping_ms: int = 30_000
    """A silent connection is pinged so often,"""
    ping_answer_ms: int = 10_000
    """and closed when no answer comes within this: a client that vanished leaves no stream behind."""


def server_options(limits: ConnectionLimits) -> tuple[tuple[str, int], ...]:
    """The limits as gRPC takes them."""
    return (
        # Without this a second server binds the same port, or takes over a live Unix socket, and nobody is told.
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_concurrent_streams", limits.max_streams_per_connection),
        ("grpc.max_receive_message_length", limits.max_request_bytes),
        ("grpc.max_send_message_length", limits.max_answer_bytes),
        ("grpc.max_metadata_size", limits.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * limits.max_metadata_bytes),
        ("grpc.server_handshake_timeout_ms", limits.handshake_ms),
        # This is the name that counts; the often copied min_recv_ping_interval_without_data_ms is ignored.
        ("grpc.http2.min_ping_interval_without_data_ms", limits.min_ping_interval_ms),
        ("grpc.keepalive_time_ms", limits.ping_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        # And this is how long an answer may take: keepalive_timeout_ms leaves a server waiting for a whole minute.
        ("grpc.http2.ping_timeout_ms", limits.ping_answer_ms),
    )
