"""The standard reflection service, v1 and v1alpha: tools like grpcurl learn the contract from the daemon itself.

Event loop only. Both versions have the same messages; only the names of their packages differ.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection_pb2

from esperd.control.call import Call, Receive, Route, Send, Shape
from esperd.control.health import FILE_NAME, SERVICE, health_file

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_NOT_FOUND = 5


class ReflectionService:
    """Answers questions about the contract."""

    def __init__(self, services: Sequence[str]) -> None:
        """`services` are the full names of every service of the daemon."""
        self._services = sorted(services)
        self._pool = descriptor_pool.Default()

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        for service in SERVICES:
            method = f"/{service}/ServerReflectionInfo"
            yield Route(method, Shape.SESSION, reflection_pb2.ServerReflectionRequest, self.serve)

    async def serve(self, _: Call, receive: Receive, send: Send) -> None:
        """Answer each question in turn."""
        while (request := await receive()) is not None:
            response = self._answer(request)
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            await send(response.SerializeToString())

    def _answer(self, request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        match request.WhichOneof("message_request"):
            case "list_services":
                return self._list()
            case "file_by_filename":
                return self._files(request.file_by_filename, self._pool.FindFileByName)
            case "file_containing_symbol":
                return self._files(request.file_containing_symbol, self._pool.FindFileContainingSymbol)
            case "file_containing_extension":
                return self._extension(request.file_containing_extension)
            case "all_extension_numbers_of_type":
                return self._extension_numbers(request.all_extension_numbers_of_type)
            case _:
                return _refused("no question")

    def _list(self) -> reflection_pb2.ServerReflectionResponse:
        found = [reflection_pb2.ServiceResponse(name=name) for name in self._services]
        listing = reflection_pb2.ListServiceResponse(service=found)
        return reflection_pb2.ServerReflectionResponse(list_services_response=listing)

    def _files(self, name: str, find: Callable[[str], FileDescriptor]) -> reflection_pb2.ServerReflectionResponse:
        if name in (FILE_NAME, SERVICE) or name.startswith("grpc.health.v1."):
            return _described([health_file().SerializeToString()])
        try:
            return _described(_with_dependencies(find(name)))
        except KeyError:
            return _refused(f"there is no {name}")

    def _extension(self, asked: reflection_pb2.ExtensionRequest) -> reflection_pb2.ServerReflectionResponse:
        try:
            kind = self._pool.FindMessageTypeByName(asked.containing_type)
            found: Any = self._pool.FindExtensionByNumber(kind, asked.extension_number)
        except KeyError:
            return _refused(f"there is no extension {asked.extension_number} of {asked.containing_type}")
        return _described(_with_dependencies(found.file))

    def _extension_numbers(self, name: str) -> reflection_pb2.ServerReflectionResponse:
        try:
            kind = self._pool.FindMessageTypeByName(name)
        except KeyError:
            return _refused(f"there is no {name}")
        numbers = sorted(extension.number for extension in self._pool.FindAllExtensions(kind))
        answer = reflection_pb2.ExtensionNumberResponse(base_type_name=name, extension_number=numbers)
        return reflection_pb2.ServerReflectionResponse(all_extension_numbers_response=answer)


def _with_dependencies(file: FileDescriptor) -> list[bytes]:
    """The file and all that it imports, each once."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        file = waiting.pop()
        if file.name not in found:
            proto = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(proto)
            found[file.name] = proto.SerializeToString()
            waiting.extend(file.dependencies)
    return list(found.values())


def _described(files: Sequence[bytes]) -> reflection_pb2.ServerReflectionResponse:
    answer = reflection_pb2.FileDescriptorResponse(file_descriptor_proto=files)
    return reflection_pb2.ServerReflectionResponse(file_descriptor_response=answer)


def _refused(message: str) -> reflection_pb2.ServerReflectionResponse:
    error = reflection_pb2.ErrorResponse(error_code=_NOT_FOUND, error_message=message)
    return reflection_pb2.ServerReflectionResponse(error_response=error)
