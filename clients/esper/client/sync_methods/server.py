"""The sync client's methods for ServerService: the state of the daemon, and what a key may do.

Any one thread at a time.
"""

from collections.abc import Iterable, Iterator

from esper.client import plans, watches
from esper.client.sync_methods.caller import Caller
from esper.client.watches import RECONNECT_S
from esper.leyline.v1 import server_service_pb2 as server_pb


class Server(Caller):
    """The state of the daemon, and what a key may do."""

    def check_access(self, methods: Iterable[str] = ()) -> server_pb.CheckAccessResponse:
        """Who the signing key is and what it may do: of the named methods (full names), or of all there are."""
        return self._carry_out(plans.check_access(methods))

    def watch_server_state(self, *, reconnect_s: float = RECONNECT_S) -> Iterator[server_pb.WatchServerStateResponse]:
        """The daemon's state as it changes. See `watch_state` for `reconnect_s`."""
        return self._watch(watches.server_state(), b"", reconnect_s)
