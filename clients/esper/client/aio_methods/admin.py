"""The async client's methods for AdminService: configuration, keys, log, connections, of the daemon itself.

One event loop. Over a Unix socket only.
"""

from esper.client import admin_plans as plans
from esper.client.aio_methods.caller import AsyncCaller
from esper.leyline.v1 import admin_service_pb2 as admin_pb


class AsyncAdmin(AsyncCaller):
    """The daemon itself. `reason` goes into its log."""

    async def config(self, reason: str = "") -> admin_pb.GetConfigResponse:
        """The configuration in force, with the origin of each value."""
        return await self._carry_out(plans.config(reason))

    async def reload_config(self, reason: str = "") -> admin_pb.ReloadConfigResponse:
        """Have the daemon read configuration, keys and certificates again: all is applied, or nothing."""
        return await self._carry_out(plans.reload_config(reason))

    async def set_log_level(self, level: str, reason: str = "") -> admin_pb.SetLogLevelResponse:
        """Change the level of the daemon's log until its next start or reload."""
        return await self._carry_out(plans.set_log_level(level, reason))

    async def drain(self, reason: str = "") -> admin_pb.DrainResponse:
        """Have the daemon leave in good order."""
        return await self._carry_out(plans.drain(reason))

    async def connections(self, reason: str = "") -> admin_pb.ListConnectionsResponse:
        """Every open stream, and every peer that has called of late."""
        return await self._carry_out(plans.connections(reason))

    async def diagnostics(self, reason: str = "") -> admin_pb.DumpDiagnosticsResponse:
        """Stacks, queues, configuration and the newest rows of the journal, for a maintainer."""
        return await self._carry_out(plans.diagnostics(reason))

    async def keys(self, reason: str = "") -> admin_pb.ListKeysResponse:
        """Every key with its state and use, never its secret."""
        return await self._carry_out(plans.keys(reason))

    async def reload_keys(self, reason: str = "") -> admin_pb.ReloadKeysResponse:
        """Have the daemon read its key ring again: the whole new one, or the old one stays."""
        return await self._carry_out(plans.reload_keys(reason))

    async def revoke_key(self, key_id: str, reason: str = "") -> admin_pb.RevokeKeyResponse:
        """Have a key refused from now on, also after restarts, and every stream that it opened ended."""
        return await self._carry_out(plans.revoke_key(key_id, reason))
