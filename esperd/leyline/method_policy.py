"""What each method of the contract demands of its caller, read from the proto files' own options.

Read once at start-up; a method without a permission stops the daemon, so that no method is ever open by omission.
Knows nothing of gRPC servers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from esper.leyline.v1 import (
    admin_service_pb2,
    audit_service_pb2,
    checkpoint_service_pb2,
    command_service_pb2,
    emergency_service_pb2,
    kernel_service_pb2,
    options_pb2,
    policy_service_pb2,
    run_service_pb2,
    server_service_pb2,
    state_service_pb2,
    telemetry_service_pb2,
)
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import Permission

_FILES = (
    admin_service_pb2,
    audit_service_pb2,
    checkpoint_service_pb2,
    command_service_pb2,
    emergency_service_pb2,
    kernel_service_pb2,
    policy_service_pb2,
    run_service_pb2,
    server_service_pb2,
    state_service_pb2,
    telemetry_service_pb2,
)


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """How the daemon treats one method."""

    method: str
    """The full name, `/esper.leyline.v1.CommandService/SubmitCommand`."""
    permission: Permission
    """What the signing key must be allowed to do."""
    signed: bool
    """Whether the request carries a SignedEnvelope."""
    audited: bool
    """Whether each call leaves a row in the audit log."""
    urgent: bool
    """Exempt from pacing: the emergency lane."""
    unix_only: bool = False
    """Whether it is answered over a Unix socket only."""


def services() -> tuple[ServiceDescriptor, ...]:
    """Every service of the contract."""
    return tuple(service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values())


def read_method_policies(of: Iterable[ServiceDescriptor] | None = None) -> Mapping[str, MethodPolicy]:
    """The policy of every method by its full name; of the whole contract unless services are given.

    Raises EsperdError INTERNAL when a method declares no permission, or changes something without a signature.
    """
    policies = {}
    for service in services() if of is None else of:
        for method in service.methods:
            policy = _policy(service, method)
            policies[policy.method] = policy
    return MappingProxyType(policies)


def _policy(service: ServiceDescriptor, method: MethodDescriptor) -> MethodPolicy:
    name = f"/{service.full_name}/{method.name}"
    # The stubs of the generated code know an extension only as a bare descriptor.
    extension: Any = options_pb2.policy
    declared: options_pb2.MethodPolicy = method.GetOptions().Extensions[extension]
    if declared.permission not in [int(item) for item in Permission] or not declared.permission:
        raise EsperdError("INTERNAL", detail=f"the method {name} declares no permission")
    permission = Permission(declared.permission)
    if permission is not Permission.OBSERVE and not declared.signed:
        raise EsperdError("INTERNAL", detail=f"the method {name} needs {permission.name} but takes no signature")
    return MethodPolicy(name, permission, declared.signed, declared.audited, declared.urgent, declared.unix_only)
