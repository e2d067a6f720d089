"""The async client's methods for ServerService: the state of the daemon, and what a key may do.

One event loop.
"""

from collections.abc import AsyncIterator, Iterable

from esper.client import plans, watches
from esper.client.aio_methods.caller import AsyncCaller
from esper.client.watches import RECONNECT_S
from esper.leyline.v1 import server_service_pb2 as server_pb


class AsyncServer(AsyncCaller):
    """The state of the daemon, and what a key may do."""

    async def check_access(self, methods: Iterable[str] = ()) -> server_pb.CheckAccessResponse:
        """Who the signing key is and what it may do: of the named methods (full names), or of all there are."""
        return await self._carry_out(plans.check_access(methods))

    def watch_server_state(
        self, *, reconnect_s: float = RECONNECT_S
    ) -> AsyncIterator[server_pb.WatchServerStateResponse]:
        """The daemon's state as it changes. See `watch_state` for `reconnect_s`."""
        return self._watch(watches.server_state(), b"", reconnect_s)
