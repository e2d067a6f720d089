"""What each stream of the clients asks for: the call, and its opening request for a resume token.

Any thread, without I/O; shared by the async and the sync client.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from google.protobuf.message import Message

from esper.client import calls
from esper.client.calls import AnswerT, Call
from esper.leyline.v1 import command_service_pb2 as command_pb
from esper.leyline.v1 import kernel_service_pb2 as kernel_pb
from esper.leyline.v1 import server_service_pb2 as server_pb
from esper.leyline.v1 import state_service_pb2 as state_pb
from esper.leyline.v1 import telemetry_service_pb2 as telemetry_pb
from esper.leyline.v1.kernel_pb2 import KernelState

RECONNECT_S = 60.0
"""How long a watch tries to come back after a cut, unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Watch(Generic[AnswerT]):
    """One stream to be opened, and opened again after a cut."""

    call: Call[AnswerT]
    opening: Callable[[bytes], Message]
    """The request for a resume token."""


def server_state() -> Watch[server_pb.WatchServerStateResponse]:
    """The daemon's state."""
    return Watch(calls.WATCH_SERVER_STATE, lambda _: server_pb.WatchServerStateRequest())


def state(*, latest: bool, resnapshot: bool, bookmark_interval_s: int) -> Watch[state_pb.WatchStateResponse]:
    """A snapshot, then deltas."""
    return Watch(
        calls.WATCH_STATE,
        lambda token: state_pb.WatchStateRequest(
            resume_token=token,
            delivery=_delivery(latest),
            resnapshot_on_gap=resnapshot,
            bookmark_interval_s=bookmark_interval_s,
        ),
    )


def commands(*, latest: bool, restart: bool, bookmark_interval_s: int) -> Watch[command_pb.WatchCommandsResponse]:
    """Commands as they are accepted and settled."""
    return Watch(
        calls.WATCH_COMMANDS,
        lambda token: command_pb.WatchCommandsRequest(
            resume_token=token,
            delivery=_delivery(latest),
            restart_on_gap=restart,
            bookmark_interval_s=bookmark_interval_s,
        ),
    )


def kernels(states: Sequence[KernelState]) -> Watch[kernel_pb.WatchKernelsResponse]:
    """Kernels as they are, and as they change."""
    request = kernel_pb.WatchKernelsRequest(states=states)
    return Watch(calls.WATCH_KERNELS, lambda _: request)


def telemetry(
    *, metrics: Sequence[str], max_frames_per_s: float, latest_only: bool, min_event_level: str
) -> Watch[telemetry_pb.StreamTelemetryResponse]:
    """Samples in frames."""
    request = telemetry_pb.StreamTelemetryRequest(
        metrics=metrics,
        max_frames_per_s=max_frames_per_s,
        latest_only=latest_only,
        min_event_level=min_event_level,
    )
    return Watch(calls.STREAM_TELEMETRY, lambda _: request)


def _delivery(latest: bool) -> state_pb.DeliveryPolicy:
    return state_pb.DELIVERY_POLICY_LATEST if latest else state_pb.DELIVERY_POLICY_EVERY
