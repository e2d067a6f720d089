from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import envelope_pb2 as _envelope_pb2
from esper.leyline.v1 import kernel_pb2 as _kernel_pb2
from esper.leyline.v1 import options_pb2 as _options_pb2
from esper.leyline.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BlueprintParameterBounds(_message.Message):
    __slots__ = ("min_value", "max_value", "default_value", "integer")
    MIN_VALUE_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    min_value: float
    max_value: float
    default_value: float
    integer: bool
    def __init__(self, min_value: _Optional[float] = ..., max_value: _Optional[float] = ..., default_value: _Optional[float] = ..., integer: _Optional[bool] = ...) -> None: ...

class BlueprintDescriptor(_message.Message):
    __slots__ = ("blueprint_id", "name", "tier", "allowed_parameters", "risk", "description", "source_sha256", "sites")
    class AllowedParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: BlueprintParameterBounds
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[BlueprintParameterBounds, _Mapping]] = ...) -> None: ...
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SHA256_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    name: str
    tier: _vocabulary_pb2.BlueprintTier
    allowed_parameters: _containers.MessageMap[str, BlueprintParameterBounds]
    risk: float
    description: str
    source_sha256: str
    sites: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, blueprint_id: _Optional[str] = ..., name: _Optional[str] = ..., tier: _Optional[_Union[_vocabulary_pb2.BlueprintTier, str]] = ..., allowed_parameters: _Optional[_Mapping[str, BlueprintParameterBounds]] = ..., risk: _Optional[float] = ..., description: _Optional[str] = ..., source_sha256: _Optional[str] = ..., sites: _Optional[_Iterable[str]] = ...) -> None: ...

class ListBlueprintsRequest(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: str
    def __init__(self, site: _Optional[str] = ...) -> None: ...

class ListBlueprintsResponse(_message.Message):
    __slots__ = ("blueprints",)
    BLUEPRINTS_FIELD_NUMBER: _ClassVar[int]
    blueprints: _containers.RepeatedCompositeFieldContainer[BlueprintDescriptor]
    def __init__(self, blueprints: _Optional[_Iterable[_Union[BlueprintDescriptor, _Mapping]]] = ...) -> None: ...

class ListKernelsRequest(_message.Message):
    __slots__ = ("blueprint_id", "site", "states", "tier", "page_size", "page_token")
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    site: str
    states: _containers.RepeatedScalarFieldContainer[_kernel_pb2.KernelState]
    tier: _vocabulary_pb2.BlueprintTier
    page_size: int
    page_token: str
    def __init__(self, blueprint_id: _Optional[str] = ..., site: _Optional[str] = ..., states: _Optional[_Iterable[_Union[_kernel_pb2.KernelState, str]]] = ..., tier: _Optional[_Union[_vocabulary_pb2.BlueprintTier, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListKernelsResponse(_message.Message):
    __slots__ = ("kernels", "next_page_token", "stored_bytes", "quota_bytes", "resident_bytes")
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    kernels: _containers.RepeatedCompositeFieldContainer[_kernel_pb2.Kernel]
    next_page_token: str
    stored_bytes: int
    quota_bytes: int
    resident_bytes: int
    def __init__(self, kernels: _Optional[_Iterable[_Union[_kernel_pb2.Kernel, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., stored_bytes: _Optional[int] = ..., quota_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ...) -> None: ...

class GetKernelRequest(_message.Message):
    __slots__ = ("artifact_id",)
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    def __init__(self, artifact_id: _Optional[str] = ...) -> None: ...

class GetKernelResponse(_message.Message):
    __slots__ = ("kernel", "manifest", "manifest_signature", "report", "report_signature")
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    REPORT_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    kernel: _kernel_pb2.Kernel
    manifest: bytes
    manifest_signature: _kernel_pb2.KernelSignature
    report: bytes
    report_signature: _kernel_pb2.KernelSignature
    def __init__(self, kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ..., manifest: _Optional[bytes] = ..., manifest_signature: _Optional[_Union[_kernel_pb2.KernelSignature, _Mapping]] = ..., report: _Optional[bytes] = ..., report_signature: _Optional[_Union[_kernel_pb2.KernelSignature, _Mapping]] = ...) -> None: ...

class WatchKernelsRequest(_message.Message):
    __slots__ = ("states",)
    STATES_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedScalarFieldContainer[_kernel_pb2.KernelState]
    def __init__(self, states: _Optional[_Iterable[_Union[_kernel_pb2.KernelState, str]]] = ...) -> None: ...

class WatchKernelsResponse(_message.Message):
    __slots__ = ("kernels", "is_complete", "draining")
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    IS_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    kernels: _containers.RepeatedCompositeFieldContainer[_kernel_pb2.Kernel]
    is_complete: bool
    draining: bool
    def __init__(self, kernels: _Optional[_Iterable[_Union[_kernel_pb2.Kernel, _Mapping]]] = ..., is_complete: _Optional[bool] = ..., draining: _Optional[bool] = ...) -> None: ...

class DownloadKernelRequest(_message.Message):
    __slots__ = ("artifact_id",)
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    def __init__(self, artifact_id: _Optional[str] = ...) -> None: ...

class DownloadKernelResponse(_message.Message):
    __slots__ = ("role", "offset", "data")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    role: _kernel_pb2.KernelFileRole
    offset: int
    data: bytes
    def __init__(self, role: _Optional[_Union[_kernel_pb2.KernelFileRole, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ReportCompilationPayload(_message.Message):
    __slots__ = ("variant_key", "state", "attempt", "detail")
    VARIANT_KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    variant_key: str
    state: _kernel_pb2.KernelState
    attempt: int
    detail: str
    def __init__(self, variant_key: _Optional[str] = ..., state: _Optional[_Union[_kernel_pb2.KernelState, str]] = ..., attempt: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class ReportCompilationRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class ReportCompilationResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: _kernel_pb2.Kernel
    def __init__(self, kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ...) -> None: ...

class CreateUploadPayload(_message.Message):
    __slots__ = ("manifest", "signature")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    signature: _kernel_pb2.KernelSignature
    def __init__(self, manifest: _Optional[bytes] = ..., signature: _Optional[_Union[_kernel_pb2.KernelSignature, _Mapping]] = ...) -> None: ...

class CreateUploadRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class UploadProgress(_message.Message):
    __slots__ = ("role", "num_received", "num_bytes")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NUM_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    role: _kernel_pb2.KernelFileRole
    num_received: int
    num_bytes: int
    def __init__(self, role: _Optional[_Union[_kernel_pb2.KernelFileRole, str]] = ..., num_received: _Optional[int] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class CreateUploadResponse(_message.Message):
    __slots__ = ("artifact_id", "progress", "kernel")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    progress: _containers.RepeatedCompositeFieldContainer[UploadProgress]
    kernel: _kernel_pb2.Kernel
    def __init__(self, artifact_id: _Optional[str] = ..., progress: _Optional[_Iterable[_Union[UploadProgress, _Mapping]]] = ..., kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ...) -> None: ...

class UploadChunk(_message.Message):
    __slots__ = ("artifact_id", "role", "offset", "data")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    role: _kernel_pb2.KernelFileRole
    offset: int
    data: bytes
    def __init__(self, artifact_id: _Optional[str] = ..., role: _Optional[_Union[_kernel_pb2.KernelFileRole, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadKernelRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class UploadKernelResponse(_message.Message):
    __slots__ = ("progress", "kernel")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    progress: _containers.RepeatedCompositeFieldContainer[UploadProgress]
    kernel: _kernel_pb2.Kernel
    def __init__(self, progress: _Optional[_Iterable[_Union[UploadProgress, _Mapping]]] = ..., kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ...) -> None: ...

class VerifyKernelPayload(_message.Message):
    __slots__ = ("artifact_id",)
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    def __init__(self, artifact_id: _Optional[str] = ...) -> None: ...

class VerifyKernelRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class VerifyKernelResponse(_message.Message):
    __slots__ = ("intact", "findings", "kernel")
    INTACT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    intact: bool
    findings: _containers.RepeatedScalarFieldContainer[str]
    kernel: _kernel_pb2.Kernel
    def __init__(self, intact: _Optional[bool] = ..., findings: _Optional[_Iterable[str]] = ..., kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ...) -> None: ...

class DeleteKernelPayload(_message.Message):
    __slots__ = ("artifact_id", "reason")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    reason: str
    def __init__(self, artifact_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DeleteKernelRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class DeleteKernelResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: _kernel_pb2.Kernel
    def __init__(self, kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ...) -> None: ...

class PinKernelPayload(_message.Message):
    __slots__ = ("artifact_id", "pinned")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    pinned: bool
    def __init__(self, artifact_id: _Optional[str] = ..., pinned: _Optional[bool] = ...) -> None: ...

class PinKernelRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class PinKernelResponse(_message.Message):
    __slots__ = ("kernel",)
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    kernel: _kernel_pb2.Kernel
    def __init__(self, kernel: _Optional[_Union[_kernel_pb2.Kernel, _Mapping]] = ...) -> None: ...
