import datetime

from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import options_pb2 as _options_pb2
from esper.leyline.v1 import state_pb2 as _state_pb2
from esper.leyline.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeliveryPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELIVERY_POLICY_UNSPECIFIED: _ClassVar[DeliveryPolicy]
    DELIVERY_POLICY_EVERY: _ClassVar[DeliveryPolicy]
    DELIVERY_POLICY_LATEST: _ClassVar[DeliveryPolicy]
DELIVERY_POLICY_UNSPECIFIED: DeliveryPolicy
DELIVERY_POLICY_EVERY: DeliveryPolicy
DELIVERY_POLICY_LATEST: DeliveryPolicy

class GetSeedRequest(_message.Message):
    __slots__ = ("seed_id",)
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    seed_id: str
    def __init__(self, seed_id: _Optional[str] = ...) -> None: ...

class SeedTransition(_message.Message):
    __slots__ = ("source", "target", "global_step", "cause", "gate", "time", "timeline")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    source: _vocabulary_pb2.SeedLifecycleStage
    target: _vocabulary_pb2.SeedLifecycleStage
    global_step: int
    cause: str
    gate: _state_pb2.GateResult
    time: _timestamp_pb2.Timestamp
    timeline: int
    def __init__(self, source: _Optional[_Union[_vocabulary_pb2.SeedLifecycleStage, str]] = ..., target: _Optional[_Union[_vocabulary_pb2.SeedLifecycleStage, str]] = ..., global_step: _Optional[int] = ..., cause: _Optional[str] = ..., gate: _Optional[_Union[_state_pb2.GateResult, _Mapping]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., timeline: _Optional[int] = ...) -> None: ...

class GetSeedResponse(_message.Message):
    __slots__ = ("seed", "transitions", "revision")
    SEED_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    seed: _state_pb2.SeedState
    transitions: _containers.RepeatedCompositeFieldContainer[SeedTransition]
    revision: int
    def __init__(self, seed: _Optional[_Union[_state_pb2.SeedState, _Mapping]] = ..., transitions: _Optional[_Iterable[_Union[SeedTransition, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class ListSeedsRequest(_message.Message):
    __slots__ = ("stage", "with_gone")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    WITH_GONE_FIELD_NUMBER: _ClassVar[int]
    stage: _vocabulary_pb2.SeedLifecycleStage
    with_gone: bool
    def __init__(self, stage: _Optional[_Union[_vocabulary_pb2.SeedLifecycleStage, str]] = ..., with_gone: _Optional[bool] = ...) -> None: ...

class ListSeedsResponse(_message.Message):
    __slots__ = ("seeds", "revision")
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    seeds: _containers.RepeatedCompositeFieldContainer[_state_pb2.SeedState]
    revision: int
    def __init__(self, seeds: _Optional[_Iterable[_Union[_state_pb2.SeedState, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class ListSitesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSitesResponse(_message.Message):
    __slots__ = ("sites", "revision")
    SITES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    sites: _containers.RepeatedCompositeFieldContainer[_state_pb2.Site]
    revision: int
    def __init__(self, sites: _Optional[_Iterable[_Union[_state_pb2.Site, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetOptimizersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetOptimizersResponse(_message.Message):
    __slots__ = ("groups", "revision")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[_state_pb2.OptimizerGroup]
    revision: int
    def __init__(self, groups: _Optional[_Iterable[_Union[_state_pb2.OptimizerGroup, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class ListTimelinesRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ListTimelinesResponse(_message.Message):
    __slots__ = ("timelines",)
    TIMELINES_FIELD_NUMBER: _ClassVar[int]
    timelines: _containers.RepeatedCompositeFieldContainer[_state_pb2.Timeline]
    def __init__(self, timelines: _Optional[_Iterable[_Union[_state_pb2.Timeline, _Mapping]]] = ...) -> None: ...

class WatchStateRequest(_message.Message):
    __slots__ = ("resume_token", "delivery", "resnapshot_on_gap", "bookmark_interval_s")
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    RESNAPSHOT_ON_GAP_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    resume_token: bytes
    delivery: DeliveryPolicy
    resnapshot_on_gap: bool
    bookmark_interval_s: int
    def __init__(self, resume_token: _Optional[bytes] = ..., delivery: _Optional[_Union[DeliveryPolicy, str]] = ..., resnapshot_on_gap: _Optional[bool] = ..., bookmark_interval_s: _Optional[int] = ...) -> None: ...

class StateSnapshot(_message.Message):
    __slots__ = ("run", "seeds", "sites", "optimizers", "emergencies", "breakers", "restore_points", "timelines")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZERS_FIELD_NUMBER: _ClassVar[int]
    EMERGENCIES_FIELD_NUMBER: _ClassVar[int]
    BREAKERS_FIELD_NUMBER: _ClassVar[int]
    RESTORE_POINTS_FIELD_NUMBER: _ClassVar[int]
    TIMELINES_FIELD_NUMBER: _ClassVar[int]
    run: _state_pb2.Run
    seeds: _containers.RepeatedCompositeFieldContainer[_state_pb2.SeedState]
    sites: _containers.RepeatedCompositeFieldContainer[_state_pb2.Site]
    optimizers: _containers.RepeatedCompositeFieldContainer[_state_pb2.OptimizerGroup]
    emergencies: _containers.RepeatedCompositeFieldContainer[_state_pb2.Emergency]
    breakers: _containers.RepeatedCompositeFieldContainer[_state_pb2.CircuitBreaker]
    restore_points: _containers.RepeatedCompositeFieldContainer[_state_pb2.RestorePoint]
    timelines: _containers.RepeatedCompositeFieldContainer[_state_pb2.Timeline]
    def __init__(self, run: _Optional[_Union[_state_pb2.Run, _Mapping]] = ..., seeds: _Optional[_Iterable[_Union[_state_pb2.SeedState, _Mapping]]] = ..., sites: _Optional[_Iterable[_Union[_state_pb2.Site, _Mapping]]] = ..., optimizers: _Optional[_Iterable[_Union[_state_pb2.OptimizerGroup, _Mapping]]] = ..., emergencies: _Optional[_Iterable[_Union[_state_pb2.Emergency, _Mapping]]] = ..., breakers: _Optional[_Iterable[_Union[_state_pb2.CircuitBreaker, _Mapping]]] = ..., restore_points: _Optional[_Iterable[_Union[_state_pb2.RestorePoint, _Mapping]]] = ..., timelines: _Optional[_Iterable[_Union[_state_pb2.Timeline, _Mapping]]] = ...) -> None: ...

class StateDelta(_message.Message):
    __slots__ = ("run", "seeds", "removed_seed_ids", "sites", "optimizers", "optimizers_changed", "emergencies", "emergencies_changed", "breakers", "restore_points", "restore_points_changed", "timelines", "timelines_changed")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_SEED_IDS_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZERS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZERS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    EMERGENCIES_FIELD_NUMBER: _ClassVar[int]
    EMERGENCIES_CHANGED_FIELD_NUMBER: _ClassVar[int]
    BREAKERS_FIELD_NUMBER: _ClassVar[int]
    RESTORE_POINTS_FIELD_NUMBER: _ClassVar[int]
    RESTORE_POINTS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    TIMELINES_FIELD_NUMBER: _ClassVar[int]
    TIMELINES_CHANGED_FIELD_NUMBER: _ClassVar[int]
    run: _state_pb2.Run
    seeds: _containers.RepeatedCompositeFieldContainer[_state_pb2.SeedState]
    removed_seed_ids: _containers.RepeatedScalarFieldContainer[str]
    sites: _containers.RepeatedCompositeFieldContainer[_state_pb2.Site]
    optimizers: _containers.RepeatedCompositeFieldContainer[_state_pb2.OptimizerGroup]
    optimizers_changed: bool
    emergencies: _containers.RepeatedCompositeFieldContainer[_state_pb2.Emergency]
    emergencies_changed: bool
    breakers: _containers.RepeatedCompositeFieldContainer[_state_pb2.CircuitBreaker]
    restore_points: _containers.RepeatedCompositeFieldContainer[_state_pb2.RestorePoint]
    restore_points_changed: bool
    timelines: _containers.RepeatedCompositeFieldContainer[_state_pb2.Timeline]
    timelines_changed: bool
    def __init__(self, run: _Optional[_Union[_state_pb2.Run, _Mapping]] = ..., seeds: _Optional[_Iterable[_Union[_state_pb2.SeedState, _Mapping]]] = ..., removed_seed_ids: _Optional[_Iterable[str]] = ..., sites: _Optional[_Iterable[_Union[_state_pb2.Site, _Mapping]]] = ..., optimizers: _Optional[_Iterable[_Union[_state_pb2.OptimizerGroup, _Mapping]]] = ..., optimizers_changed: _Optional[bool] = ..., emergencies: _Optional[_Iterable[_Union[_state_pb2.Emergency, _Mapping]]] = ..., emergencies_changed: _Optional[bool] = ..., breakers: _Optional[_Iterable[_Union[_state_pb2.CircuitBreaker, _Mapping]]] = ..., restore_points: _Optional[_Iterable[_Union[_state_pb2.RestorePoint, _Mapping]]] = ..., restore_points_changed: _Optional[bool] = ..., timelines: _Optional[_Iterable[_Union[_state_pb2.Timeline, _Mapping]]] = ..., timelines_changed: _Optional[bool] = ...) -> None: ...

class WatchStateResponse(_message.Message):
    __slots__ = ("revision", "resume_token", "snapshot", "delta", "num_conflated", "draining")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    NUM_CONFLATED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    revision: int
    resume_token: bytes
    snapshot: StateSnapshot
    delta: StateDelta
    num_conflated: int
    draining: bool
    def __init__(self, revision: _Optional[int] = ..., resume_token: _Optional[bytes] = ..., snapshot: _Optional[_Union[StateSnapshot, _Mapping]] = ..., delta: _Optional[_Union[StateDelta, _Mapping]] = ..., num_conflated: _Optional[int] = ..., draining: _Optional[bool] = ...) -> None: ...
