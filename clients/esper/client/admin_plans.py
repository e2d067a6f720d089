"""What each method of AdminService asks, as a plan for either client.

Any thread, without I/O. Every call is signed, also those that only look; `reason` goes into the daemon's log.
"""

from esper.client import calls
from esper.client.plans import Plan
from esper.leyline.v1 import admin_service_pb2 as admin_pb


def config(reason: str) -> Plan[admin_pb.GetConfigResponse]:
    """The configuration in force, with the origin of each value."""
    return Plan(calls.GET_CONFIG, admin_pb.AdminPayload(reason=reason))


def reload_config(reason: str) -> Plan[admin_pb.ReloadConfigResponse]:
    """Have the daemon read configuration, keys and certificates again: all is applied, or nothing."""
    return Plan(calls.RELOAD_CONFIG, admin_pb.AdminPayload(reason=reason))


def set_log_level(level: str, reason: str) -> Plan[admin_pb.SetLogLevelResponse]:
    """Change the level of the daemon's log until its next start or reload."""
    return Plan(calls.SET_LOG_LEVEL, admin_pb.SetLogLevelPayload(level=level, reason=reason))


def drain(reason: str) -> Plan[admin_pb.DrainResponse]:
    """Have the daemon leave in good order."""
    return Plan(calls.DRAIN, admin_pb.AdminPayload(reason=reason))


def connections(reason: str) -> Plan[admin_pb.ListConnectionsResponse]:
    """Every open stream, and every peer that has called of late."""
    return Plan(calls.LIST_CONNECTIONS, admin_pb.AdminPayload(reason=reason))


def diagnostics(reason: str) -> Plan[admin_pb.DumpDiagnosticsResponse]:
    """Stacks, queues, configuration and the newest rows of the journal, for a maintainer."""
    return Plan(calls.DUMP_DIAGNOSTICS, admin_pb.AdminPayload(reason=reason))


def keys(reason: str) -> Plan[admin_pb.ListKeysResponse]:
    """Every key with its state and use, never its secret."""
    return Plan(calls.LIST_KEYS, admin_pb.AdminPayload(reason=reason))


def reload_keys(reason: str) -> Plan[admin_pb.ReloadKeysResponse]:
    """Have the daemon read its key ring again: the whole new one, or the old one stays."""
    return Plan(calls.RELOAD_KEYS, admin_pb.AdminPayload(reason=reason))


def revoke_key(key_id: str, reason: str) -> Plan[admin_pb.RevokeKeyResponse]:
    """Have a key refused from now on, also after restarts, and every stream that it opened ended."""
    return Plan(calls.REVOKE_KEY, admin_pb.RevokeKeyPayload(key_id=key_id, reason=reason))
