"""Where esperctl connects to, as it was said on the command line.

Loads gRPC only when a client is really made.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from esper.address import OPERATOR_KEYS, Target, TlsPaths, find_target

if TYPE_CHECKING:
    from esper.client.sync import Client

CALL_S = 10.0
"""How long one call may take, all its attempts together."""


@dataclass(frozen=True, slots=True)
class Where:
    """`--address`, `--key` and the `--tls-` options, None where not given."""

    address: str | None
    key: str | None
    tls: TlsPaths = field(default_factory=TlsPaths)

    def target(self) -> Target:
        """The daemon and the credentials."""
        return find_target(self.address, self.key, OPERATOR_KEYS, self.tls)

    def client(self) -> "Client":
        """A client that is not open yet."""
        from esper.client.sync import Client

        target = self.target()
        return Client(target.address, target.credentials, tls=target.tls, timeout_s=CALL_S)
