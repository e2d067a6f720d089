"""What a key may do: each method of the contract, and why not.

Pure. Says the same as the gate and the verifier would, without a call being made.
"""

from collections.abc import Iterable, Mapping

from esper.leyline.v1 import server_service_pb2

from esperd.control.errors import InvalidRequest, Violation
from esperd.control.shown import wire
from esperd.leyline.keyring import Key
from esperd.leyline.method_policy import MethodPolicy


def method_accesses(
    key: Key, methods: Iterable[str], policies: Mapping[str, MethodPolicy], *, is_unix: bool
) -> list[server_service_pb2.MethodAccess]:
    """Whether an accepted key may call these methods over this kind of connection; none named asks for all.

    Raises InvalidRequest for a method that the contract does not have.
    """
    asked = list(methods) or sorted(policies)
    unknown = [number for number, method in enumerate(asked) if method not in policies]
    if unknown:
        violations = [Violation(f"methods[{number}]", "is no method of the contract") for number in unknown]
        raise InvalidRequest(violations, reason="REQUEST_INVALID")
    return [_access(key, policies[method], is_unix) for method in asked]


def _access(key: Key, policy: MethodPolicy, is_unix: bool) -> server_service_pb2.MethodAccess:
    why_not = ""
    if not key.allows(policy.permission):
        why_not = f"lacks {policy.permission.name.lower()}"
    elif policy.unix_only and not is_unix:
        why_not = "over a Unix socket only"
    return server_service_pb2.MethodAccess(
        method=policy.method, permission=wire(policy.permission), allowed=not why_not, why_not=why_not
    )
