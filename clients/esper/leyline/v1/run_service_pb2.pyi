from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import command_pb2 as _command_pb2
from esper.leyline.v1 import envelope_pb2 as _envelope_pb2
from esper.leyline.v1 import options_pb2 as _options_pb2
from esper.leyline.v1 import state_pb2 as _state_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run", "revision", "emergencies", "breakers", "lease_principal", "timelines", "restore_points")
    RUN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EMERGENCIES_FIELD_NUMBER: _ClassVar[int]
    BREAKERS_FIELD_NUMBER: _ClassVar[int]
    LEASE_PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    TIMELINES_FIELD_NUMBER: _ClassVar[int]
    RESTORE_POINTS_FIELD_NUMBER: _ClassVar[int]
    run: _state_pb2.Run
    revision: int
    emergencies: _containers.RepeatedCompositeFieldContainer[_state_pb2.Emergency]
    breakers: _containers.RepeatedCompositeFieldContainer[_state_pb2.CircuitBreaker]
    lease_principal: str
    timelines: _containers.RepeatedCompositeFieldContainer[_state_pb2.Timeline]
    restore_points: _containers.RepeatedCompositeFieldContainer[_state_pb2.RestorePoint]
    def __init__(self, run: _Optional[_Union[_state_pb2.Run, _Mapping]] = ..., revision: _Optional[int] = ..., emergencies: _Optional[_Iterable[_Union[_state_pb2.Emergency, _Mapping]]] = ..., breakers: _Optional[_Iterable[_Union[_state_pb2.CircuitBreaker, _Mapping]]] = ..., lease_principal: _Optional[str] = ..., timelines: _Optional[_Iterable[_Union[_state_pb2.Timeline, _Mapping]]] = ..., restore_points: _Optional[_Iterable[_Union[_state_pb2.RestorePoint, _Mapping]]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_state_pb2.Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[_state_pb2.Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class StartRunPayload(_message.Message):
    __slots__ = ("after_run_id", "reason")
    AFTER_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    after_run_id: str
    reason: str
    def __init__(self, after_run_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StartRunRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class StartRunResponse(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class StopRunPayload(_message.Message):
    __slots__ = ("request_id", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StopRunResponse(_message.Message):
    __slots__ = ("command", "duplicate")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    command: _command_pb2.Command
    duplicate: bool
    def __init__(self, command: _Optional[_Union[_command_pb2.Command, _Mapping]] = ..., duplicate: _Optional[bool] = ...) -> None: ...
