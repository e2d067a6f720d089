import datetime

from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import options_pb2 as _options_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListMetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MetricDescriptor(_message.Message):
    __slots__ = ("name", "unit", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    unit: str
    description: str
    def __init__(self, name: _Optional[str] = ..., unit: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class ListMetricsResponse(_message.Message):
    __slots__ = ("metrics",)
    METRICS_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[MetricDescriptor]
    def __init__(self, metrics: _Optional[_Iterable[_Union[MetricDescriptor, _Mapping]]] = ...) -> None: ...

class QueryTelemetryRequest(_message.Message):
    __slots__ = ("metrics", "slot", "first_step", "last_step", "max_buckets")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    MAX_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedScalarFieldContainer[str]
    slot: int
    first_step: int
    last_step: int
    max_buckets: int
    def __init__(self, metrics: _Optional[_Iterable[str]] = ..., slot: _Optional[int] = ..., first_step: _Optional[int] = ..., last_step: _Optional[int] = ..., max_buckets: _Optional[int] = ...) -> None: ...

class TelemetryBucket(_message.Message):
    __slots__ = ("first_step", "last_step", "num_samples", "minimum", "maximum", "mean", "num_not_finite")
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    NUM_NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    first_step: int
    last_step: int
    num_samples: int
    minimum: float
    maximum: float
    mean: float
    num_not_finite: int
    def __init__(self, first_step: _Optional[int] = ..., last_step: _Optional[int] = ..., num_samples: _Optional[int] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ..., mean: _Optional[float] = ..., num_not_finite: _Optional[int] = ...) -> None: ...

class TelemetrySeries(_message.Message):
    __slots__ = ("name", "slot", "timeline", "buckets")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    name: str
    slot: int
    timeline: int
    buckets: _containers.RepeatedCompositeFieldContainer[TelemetryBucket]
    def __init__(self, name: _Optional[str] = ..., slot: _Optional[int] = ..., timeline: _Optional[int] = ..., buckets: _Optional[_Iterable[_Union[TelemetryBucket, _Mapping]]] = ...) -> None: ...

class QueryTelemetryResponse(_message.Message):
    __slots__ = ("series", "oldest_step", "num_dropped")
    SERIES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_STEP_FIELD_NUMBER: _ClassVar[int]
    NUM_DROPPED_FIELD_NUMBER: _ClassVar[int]
    series: _containers.RepeatedCompositeFieldContainer[TelemetrySeries]
    oldest_step: int
    num_dropped: int
    def __init__(self, series: _Optional[_Iterable[_Union[TelemetrySeries, _Mapping]]] = ..., oldest_step: _Optional[int] = ..., num_dropped: _Optional[int] = ...) -> None: ...

class StreamTelemetryRequest(_message.Message):
    __slots__ = ("metrics", "max_frames_per_s", "latest_only", "min_event_level")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAMES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LATEST_ONLY_FIELD_NUMBER: _ClassVar[int]
    MIN_EVENT_LEVEL_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedScalarFieldContainer[str]
    max_frames_per_s: float
    latest_only: bool
    min_event_level: str
    def __init__(self, metrics: _Optional[_Iterable[str]] = ..., max_frames_per_s: _Optional[float] = ..., latest_only: _Optional[bool] = ..., min_event_level: _Optional[str] = ...) -> None: ...

class MetricSeries(_message.Message):
    __slots__ = ("name", "slot", "global_steps", "values", "times_unix_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TIMES_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    slot: int
    global_steps: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    times_unix_ns: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., slot: _Optional[int] = ..., global_steps: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., times_unix_ns: _Optional[_Iterable[int]] = ...) -> None: ...

class TelemetryEvent(_message.Message):
    __slots__ = ("event_id", "description", "level", "attributes", "global_step", "time", "timeline")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    description: str
    level: str
    attributes: _containers.ScalarMap[str, str]
    global_step: int
    time: _timestamp_pb2.Timestamp
    timeline: int
    def __init__(self, event_id: _Optional[str] = ..., description: _Optional[str] = ..., level: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., global_step: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., timeline: _Optional[int] = ...) -> None: ...

class TelemetryFrame(_message.Message):
    __slots__ = ("frame_number", "series", "events", "num_ring_dropped", "timeline")
    FRAME_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NUM_RING_DROPPED_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    frame_number: int
    series: _containers.RepeatedCompositeFieldContainer[MetricSeries]
    events: _containers.RepeatedCompositeFieldContainer[TelemetryEvent]
    num_ring_dropped: int
    timeline: int
    def __init__(self, frame_number: _Optional[int] = ..., series: _Optional[_Iterable[_Union[MetricSeries, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[TelemetryEvent, _Mapping]]] = ..., num_ring_dropped: _Optional[int] = ..., timeline: _Optional[int] = ...) -> None: ...

class StreamTelemetryResponse(_message.Message):
    __slots__ = ("frame", "num_frames_dropped", "draining")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    frame: TelemetryFrame
    num_frames_dropped: int
    draining: bool
    def __init__(self, frame: _Optional[_Union[TelemetryFrame, _Mapping]] = ..., num_frames_dropped: _Optional[int] = ..., draining: _Optional[bool] = ...) -> None: ...
