"""The standard health service, `grpc.health.v1`, with List: for each service, and for each condition by its name.

Event loop only. The published Python package lacks List, so the messages are built here from the same contract; on the
wire they are the same.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from esperd.control.call import Call, Route, Send, Shape
from esperd.control.condition import Condition, ConditionBoard
from esperd.leyline.errors import EsperdError

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
FILE_NAME = "grpc/health/v1/health.proto"

_Field = descriptor_pb2.FieldDescriptorProto


def health_file() -> descriptor_pb2.FileDescriptorProto:
    """The contract of the health service."""
    file = descriptor_pb2.FileDescriptorProto(name=FILE_NAME, package="grpc.health.v1", syntax="proto3")
    file.message_type.add(name="HealthCheckRequest").field.add(
        name="service", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL
    )
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    response.field.add(
        name="status",
        number=1,
        type=_Field.TYPE_ENUM,
        label=_Field.LABEL_OPTIONAL,
        type_name=".grpc.health.v1.HealthCheckResponse.ServingStatus",
    )
    file.message_type.add(name="HealthListRequest")
    _add_list_response(file)
    service = file.service.add(name="Health")
    for method, asked, answered, streams in (
        ("Check", "HealthCheckRequest", "HealthCheckResponse", False),
        ("List", "HealthListRequest", "HealthListResponse", False),
        ("Watch", "HealthCheckRequest", "HealthCheckResponse", True),
    ):
        service.method.add(
            name=method,
            input_type=f".grpc.health.v1.{asked}",
            output_type=f".grpc.health.v1.{answered}",
            server_streaming=streams,
        )
    return file


def _add_list_response(file: descriptor_pb2.FileDescriptorProto) -> None:
    answer = file.message_type.add(name="HealthListResponse")
    entry = answer.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_OPTIONAL,
        type_name=".grpc.health.v1.HealthCheckResponse",
    )
    answer.field.add(
        name="statuses",
        number=1,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_REPEATED,
        type_name=".grpc.health.v1.HealthListResponse.StatusesEntry",
    )


class HealthService:
    """Answers health checks."""

    def __init__(self, conditions: ConditionBoard, services: Sequence[str]) -> None:
        """`services` are the full names of the services that stand and fall with the daemon."""
        self._conditions = conditions
        self._services = ("", *services)
        # A pool of its own: the default one may hold the published package's file of the same name.
        pool = descriptor_pool.DescriptorPool()
        pool.Add(health_file())
        names = ("HealthCheckRequest", "HealthCheckResponse", "HealthListRequest", "HealthListResponse")
        self._messages: dict[str, Any] = {
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.health.v1.{name}"))
            for name in names
        }

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        check, listing = self._messages["HealthCheckRequest"], self._messages["HealthListRequest"]
        yield Route(f"/{SERVICE}/Check", Shape.UNARY, check, self.check)
        yield Route(f"/{SERVICE}/List", Shape.UNARY, listing, self.list_all)
        yield Route(f"/{SERVICE}/Watch", Shape.STREAM, check, self.watch)

    async def check(self, _: Call, request: Any) -> Any:
        """One service or condition. Raises HEALTH_UNKNOWN for any other name."""
        status = self._status(self._conditions.now, request.service)
        if status == SERVICE_UNKNOWN:
            raise EsperdError("HEALTH_UNKNOWN", name=request.service[:128])
        return self._messages["HealthCheckResponse"](status=status)

    async def list_all(self, _: Call, __: Any) -> Any:
        """Every service and condition."""
        now = self._conditions.now
        answer = self._messages["HealthListResponse"]()
        for name in (*self._services, *now.parts):
            answer.statuses[name].status = self._status(now, name)
        return answer

    async def watch(self, _: Call, request: Any, send: Send) -> None:
        """One service or condition, and whenever it changes."""
        board = self._conditions
        seen = board.now
        told = self._status(seen, request.service)
        await send(self._messages["HealthCheckResponse"](status=told).SerializeToString())
        while not board.has_ended:
            seen = await board.changed(seen)
            status = self._status(seen, request.service)
            if status != told:
                told = status
                await send(self._messages["HealthCheckResponse"](status=told).SerializeToString())

    def _status(self, condition: Condition, name: str) -> int:
        if name in self._services:
            return SERVING if condition.is_serving else NOT_SERVING
        if name in condition.parts:
            return SERVING if condition.parts[name] else NOT_SERVING
        return SERVICE_UNKNOWN
