"""The async client's methods for TelemetryService: metrics and their samples.

One event loop.
"""

from collections.abc import AsyncIterator, Sequence

from esper.client import plans, watches
from esper.client.aio_methods.caller import AsyncCaller
from esper.client.watches import RECONNECT_S
from esper.leyline.v1 import telemetry_service_pb2 as telemetry_pb


class AsyncTelemetry(AsyncCaller):
    """Metrics and their samples."""

    async def metrics(self) -> telemetry_pb.ListMetricsResponse:
        """Every metric there is."""
        return await self._carry_out(plans.metrics())

    async def query_telemetry(
        self,
        metrics: Sequence[str],
        *,
        slot: int | None = None,
        first_step: int = 0,
        last_step: int = 0,
        max_buckets: int = 0,
    ) -> telemetry_pb.QueryTelemetryResponse:
        """The samples of the last minutes in buckets of steps, each with its least, greatest and mean value.

        Names, or prefixes that end in `.*`, choose the metrics; slot 0 is what belongs to no slot, None every slot.
        The steps reach from `first_step` to `last_step`, itself included, or to now if it is 0.
        """
        request = telemetry_pb.QueryTelemetryRequest(
            metrics=metrics, slot=slot, first_step=first_step, last_step=last_step, max_buckets=max_buckets
        )
        return await self._carry_out(plans.query_telemetry(request))

    def stream_telemetry(
        self,
        *,
        metrics: Sequence[str] = (),
        max_frames_per_s: float = 0.0,
        latest_only: bool = False,
        min_event_level: str = "",
        reconnect_s: float = RECONNECT_S,
    ) -> AsyncIterator[telemetry_pb.StreamTelemetryResponse]:
        """Samples in frames; names, or prefixes that end in `.*`, choose the metrics."""
        watch = watches.telemetry(
            metrics=metrics,
            max_frames_per_s=max_frames_per_s,
            latest_only=latest_only,
            min_event_level=min_event_level,
        )
        return self._watch(watch, b"", reconnect_s)
