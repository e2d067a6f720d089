from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Permission(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PERMISSION_UNSPECIFIED: _ClassVar[Permission]
    PERMISSION_OBSERVE: _ClassVar[Permission]
    PERMISSION_COMMAND: _ClassVar[Permission]
    PERMISSION_EMERGENCY: _ClassVar[Permission]
    PERMISSION_COMPILE: _ClassVar[Permission]
    PERMISSION_OPERATE: _ClassVar[Permission]
    PERMISSION_ADMIN: _ClassVar[Permission]
PERMISSION_UNSPECIFIED: Permission
PERMISSION_OBSERVE: Permission
PERMISSION_COMMAND: Permission
PERMISSION_EMERGENCY: Permission
PERMISSION_COMPILE: Permission
PERMISSION_OPERATE: Permission
PERMISSION_ADMIN: Permission
POLICY_FIELD_NUMBER: _ClassVar[int]
policy: _descriptor.FieldDescriptor

class MethodPolicy(_message.Message):
    __slots__ = ("permission", "signed", "audited", "urgent", "unix_only")
    PERMISSION_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    AUDITED_FIELD_NUMBER: _ClassVar[int]
    URGENT_FIELD_NUMBER: _ClassVar[int]
    UNIX_ONLY_FIELD_NUMBER: _ClassVar[int]
    permission: Permission
    signed: bool
    audited: bool
    urgent: bool
    unix_only: bool
    def __init__(self, permission: _Optional[_Union[Permission, str]] = ..., signed: _Optional[bool] = ..., audited: _Optional[bool] = ..., urgent: _Optional[bool] = ..., unix_only: _Optional[bool] = ...) -> None: ...
