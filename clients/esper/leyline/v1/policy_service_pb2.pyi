import datetime

from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import command_pb2 as _command_pb2
from esper.leyline.v1 import envelope_pb2 as _envelope_pb2
from esper.leyline.v1 import field_report_pb2 as _field_report_pb2
from esper.leyline.v1 import options_pb2 as _options_pb2
from esper.leyline.v1 import state_pb2 as _state_pb2
from esper.leyline.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionOpening(_message.Message):
    __slots__ = ("mode", "policy_name", "policy_version", "packet_every_steps")
    MODE_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    PACKET_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    mode: _vocabulary_pb2.LeaseMode
    policy_name: str
    policy_version: str
    packet_every_steps: int
    def __init__(self, mode: _Optional[_Union[_vocabulary_pb2.LeaseMode, str]] = ..., policy_name: _Optional[str] = ..., policy_version: _Optional[str] = ..., packet_every_steps: _Optional[int] = ...) -> None: ...

class PolicyDecision(_message.Message):
    __slots__ = ("decision_id", "commands", "rationale")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    commands: _containers.RepeatedCompositeFieldContainer[_command_pb2.AdaptationCommand]
    rationale: str
    def __init__(self, decision_id: _Optional[str] = ..., commands: _Optional[_Iterable[_Union[_command_pb2.AdaptationCommand, _Mapping]]] = ..., rationale: _Optional[str] = ...) -> None: ...

class DecisionStreamRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("lease_id", "mode", "run_id")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    mode: _vocabulary_pb2.LeaseMode
    run_id: str
    def __init__(self, lease_id: _Optional[str] = ..., mode: _Optional[_Union[_vocabulary_pb2.LeaseMode, str]] = ..., run_id: _Optional[str] = ...) -> None: ...

class DecisionRequest(_message.Message):
    __slots__ = ("decision_id", "deadline", "packet")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    deadline: _timestamp_pb2.Timestamp
    packet: _state_pb2.SystemStatePacket
    def __init__(self, decision_id: _Optional[str] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., packet: _Optional[_Union[_state_pb2.SystemStatePacket, _Mapping]] = ...) -> None: ...

class DecisionReceipt(_message.Message):
    __slots__ = ("decision_id", "commands", "error")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    commands: _containers.RepeatedCompositeFieldContainer[_command_pb2.Command]
    error: _command_pb2.CommandError
    def __init__(self, decision_id: _Optional[str] = ..., commands: _Optional[_Iterable[_Union[_command_pb2.Command, _Mapping]]] = ..., error: _Optional[_Union[_command_pb2.CommandError, _Mapping]] = ...) -> None: ...

class DecisionOutcome(_message.Message):
    __slots__ = ("command",)
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    command: _command_pb2.Command
    def __init__(self, command: _Optional[_Union[_command_pb2.Command, _Mapping]] = ...) -> None: ...

class DecisionStreamResponse(_message.Message):
    __slots__ = ("opened", "request", "receipt", "outcome", "draining")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    opened: SessionOpened
    request: DecisionRequest
    receipt: DecisionReceipt
    outcome: DecisionOutcome
    draining: SessionDraining
    def __init__(self, opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., request: _Optional[_Union[DecisionRequest, _Mapping]] = ..., receipt: _Optional[_Union[DecisionReceipt, _Mapping]] = ..., outcome: _Optional[_Union[DecisionOutcome, _Mapping]] = ..., draining: _Optional[_Union[SessionDraining, _Mapping]] = ...) -> None: ...

class SessionDraining(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SubmitFieldReportRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class SubmitFieldReportResponse(_message.Message):
    __slots__ = ("duplicate",)
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    duplicate: bool
    def __init__(self, duplicate: _Optional[bool] = ...) -> None: ...

class ListFieldReportsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFieldReportsResponse(_message.Message):
    __slots__ = ("reports", "next_page_token")
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[_field_report_pb2.FieldReport]
    next_page_token: str
    def __init__(self, reports: _Optional[_Iterable[_Union[_field_report_pb2.FieldReport, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
