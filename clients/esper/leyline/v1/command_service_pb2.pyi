from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import command_pb2 as _command_pb2
from esper.leyline.v1 import envelope_pb2 as _envelope_pb2
from esper.leyline.v1 import options_pb2 as _options_pb2
from esper.leyline.v1 import state_service_pb2 as _state_service_pb2
from esper.leyline.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitCommandRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class SubmitCommandResponse(_message.Message):
    __slots__ = ("command", "duplicate")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    command: _command_pb2.Command
    duplicate: bool
    def __init__(self, command: _Optional[_Union[_command_pb2.Command, _Mapping]] = ..., duplicate: _Optional[bool] = ...) -> None: ...

class CommandBatch(_message.Message):
    __slots__ = ("commands",)
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[_command_pb2.AdaptationCommand]
    def __init__(self, commands: _Optional[_Iterable[_Union[_command_pb2.AdaptationCommand, _Mapping]]] = ...) -> None: ...

class SubmitCommandsRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class SubmitCommandsResponse(_message.Message):
    __slots__ = ("commands", "duplicate_request_ids")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[_command_pb2.Command]
    duplicate_request_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, commands: _Optional[_Iterable[_Union[_command_pb2.Command, _Mapping]]] = ..., duplicate_request_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class CancelCommandPayload(_message.Message):
    __slots__ = ("command_id", "reason")
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    reason: str
    def __init__(self, command_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelCommandRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class CancelCommandResponse(_message.Message):
    __slots__ = ("command",)
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    command: _command_pb2.Command
    def __init__(self, command: _Optional[_Union[_command_pb2.Command, _Mapping]] = ...) -> None: ...

class CommandStreamRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class CommandReceipt(_message.Message):
    __slots__ = ("request_id", "command_id", "state", "error", "duplicate")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    command_id: str
    state: _vocabulary_pb2.CommandState
    error: _command_pb2.CommandError
    duplicate: bool
    def __init__(self, request_id: _Optional[str] = ..., command_id: _Optional[str] = ..., state: _Optional[_Union[_vocabulary_pb2.CommandState, str]] = ..., error: _Optional[_Union[_command_pb2.CommandError, _Mapping]] = ..., duplicate: _Optional[bool] = ...) -> None: ...

class CommandStreamResponse(_message.Message):
    __slots__ = ("batch_number", "receipts", "error")
    BATCH_NUMBER_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    batch_number: int
    receipts: _containers.RepeatedCompositeFieldContainer[CommandReceipt]
    error: _command_pb2.CommandError
    def __init__(self, batch_number: _Optional[int] = ..., receipts: _Optional[_Iterable[_Union[CommandReceipt, _Mapping]]] = ..., error: _Optional[_Union[_command_pb2.CommandError, _Mapping]] = ...) -> None: ...

class GetCommandRequest(_message.Message):
    __slots__ = ("command_id", "wait_ms")
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    wait_ms: int
    def __init__(self, command_id: _Optional[str] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class GetCommandResponse(_message.Message):
    __slots__ = ("command",)
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    command: _command_pb2.Command
    def __init__(self, command: _Optional[_Union[_command_pb2.Command, _Mapping]] = ...) -> None: ...

class ListCommandsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "state", "seed_id")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    state: _vocabulary_pb2.CommandState
    seed_id: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., state: _Optional[_Union[_vocabulary_pb2.CommandState, str]] = ..., seed_id: _Optional[str] = ...) -> None: ...

class ListCommandsResponse(_message.Message):
    __slots__ = ("commands", "next_page_token")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[_command_pb2.Command]
    next_page_token: str
    def __init__(self, commands: _Optional[_Iterable[_Union[_command_pb2.Command, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchCommandsRequest(_message.Message):
    __slots__ = ("resume_token", "restart_on_gap", "delivery", "bookmark_interval_s")
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESTART_ON_GAP_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    resume_token: bytes
    restart_on_gap: bool
    delivery: _state_service_pb2.DeliveryPolicy
    bookmark_interval_s: int
    def __init__(self, resume_token: _Optional[bytes] = ..., restart_on_gap: _Optional[bool] = ..., delivery: _Optional[_Union[_state_service_pb2.DeliveryPolicy, str]] = ..., bookmark_interval_s: _Optional[int] = ...) -> None: ...

class WatchCommandsResponse(_message.Message):
    __slots__ = ("commands", "resume_token", "draining", "num_conflated", "revision")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    NUM_CONFLATED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[_command_pb2.Command]
    resume_token: bytes
    draining: bool
    num_conflated: int
    revision: int
    def __init__(self, commands: _Optional[_Iterable[_Union[_command_pb2.Command, _Mapping]]] = ..., resume_token: _Optional[bytes] = ..., draining: _Optional[bool] = ..., num_conflated: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...
