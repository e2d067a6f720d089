"""The sync client's methods for ServerService: the state of the daemon.

Any one thread at a time.
"""

from collections.abc import Iterator

from esper.client import watches
from esper.client.sync_methods.caller import Caller
from esper.client.watches import RECONNECT_S
from esper.leyline.v1 import server_service_pb2 as server_pb


class Server(Caller):
    """The state of the daemon."""

    def watch_server_state(self, *, reconnect_s: float = RECONNECT_S) -> Iterator[server_pb.WatchServerStateResponse]:
        """The daemon's state as it changes. See `watch_state` for `reconnect_s`."""
        return self._watch(watches.server_state(), b"", reconnect_s)
