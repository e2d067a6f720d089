"""The sync client of a daemon: the same methods as the async one, for scripts and command lines.

Any one thread at a time, on plain gRPC channels and without an event loop. Command streams and decision sessions are
for programs that run long; they are in the async client only.

    with Client("unix:/run/esperd/leyline.sock") as client:
        print(client.run().run.global_step)
"""

from esper.client.sync_methods.admin import Admin
from esper.client.sync_methods.audit import Audit
from esper.client.sync_methods.checkpoints import Checkpoints
from esper.client.sync_methods.commands import Commands
from esper.client.sync_methods.emergencies import Emergencies
from esper.client.sync_methods.kernels import Kernels
from esper.client.sync_methods.policies import Policies
from esper.client.sync_methods.runs import Runs
from esper.client.sync_methods.server import Server
from esper.client.sync_methods.state import State
from esper.client.sync_methods.telemetry import Telemetry


class Client(
    Server,
    Runs,
    State,
    Commands,
    Checkpoints,
    Emergencies,
    Kernels,
    Policies,
    Telemetry,
    Audit,
    Admin,
):
    """A connection to one daemon; a context manager.

    Every method raises LeylineError, or its kind Unreachable when no daemon answers.
    """
