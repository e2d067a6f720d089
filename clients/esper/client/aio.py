"""The async client of a daemon: reads, signed changes, watches that resume, command streams, decision sessions.

One event loop. Every answer is a message of the contract; every refusal is a LeylineError. Signs each attempt anew
and tries again where that can help (`attempts.py`).

    async with AsyncClient("unix:/run/esperd/leyline.sock", Credentials.load("policy.key")) as client:
        print((await client.run()).run.global_step)
"""

from esper.client.aio_methods.admin import AsyncAdmin
from esper.client.aio_methods.audit import AsyncAudit
from esper.client.aio_methods.checkpoints import AsyncCheckpoints
from esper.client.aio_methods.commands import AsyncCommands
from esper.client.aio_methods.emergencies import AsyncEmergencies
from esper.client.aio_methods.kernels import AsyncKernels
from esper.client.aio_methods.policies import AsyncPolicies
from esper.client.aio_methods.runs import AsyncRuns
from esper.client.aio_methods.server import AsyncServer
from esper.client.aio_methods.state import AsyncState
from esper.client.aio_methods.telemetry import AsyncTelemetry


class AsyncClient(
    AsyncServer,
    AsyncRuns,
    AsyncState,
    AsyncCommands,
    AsyncCheckpoints,
    AsyncEmergencies,
    AsyncKernels,
    AsyncPolicies,
    AsyncTelemetry,
    AsyncAudit,
    AsyncAdmin,
):
    """A connection to one daemon; an async context manager.

    Every method raises LeylineError, or its kind Unreachable when no daemon answers.
    """
