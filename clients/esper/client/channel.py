"""How a client's gRPC channel is set up, the same for async and sync."""

from esper.client.errors import local_error

TLS_PREFIX = "tls:"
_MAX_UNIX_PATH_BYTES = 100

OPTIONS: tuple[tuple[str, int], ...] = (
    # gRPC would send the very same bytes again, which the daemon must refuse as a replay.
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    # A daemon that vanished without a word is noticed within 40 s, also by a stream that is silent for long. The second
    # name is the one that counts: with keepalive_timeout_ms gRPC waits a minute for the answer to a ping.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's default waits up to two minutes between tries; a daemon that restarts is back much sooner.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Each client has its own connection: closing one must not keep another's alive.
    ("grpc.use_local_subchannel_pool", 1),
)


def target(address: str) -> str:
    """The gRPC target of an address: `unix:PATH`, `tls:HOST:PORT` or `HOST:PORT`. Raises LeylineError for any other."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        if not path:
            raise local_error("DAEMON_UNREACHABLE", address=address, detail="the path of the socket is missing")
        if len(path.encode()) > _MAX_UNIX_PATH_BYTES:
            detail = f"a socket's path has at most {_MAX_UNIX_PATH_BYTES} bytes"
            raise local_error("DAEMON_UNREACHABLE", address=address, detail=detail)
        return f"unix:{path}"
    place = address.removeprefix(TLS_PREFIX)
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise local_error("DAEMON_UNREACHABLE", address=address, detail="write unix:PATH, tls:HOST:PORT or HOST:PORT")
    return f"dns:///{place}"
