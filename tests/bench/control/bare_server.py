"""A bare grpc.aio server on a Unix socket: takes the same messages, looks at none, and answers with as many bytes."""

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from esper.leyline.v1 import server_service_pb2

from esperd.leyline.keyring_edit import new_key, write_client_file
from esperd.leyline.vocabulary import Permission
from tests.bench.load_kinds import SERVER_INFO

_ANSWER = bytes(190)
"""About as long as the answer to an accepted command."""


class _Bare(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def answer(_: bytes, __: Any) -> bytes:
            return _ANSWER

        async def tell_info(_: bytes, __: Any) -> bytes:
            return server_service_pb2.GetServerInfoResponse(server_id="bare", epoch=bytes(16)).SerializeToString()

        is_info = handler_call_details.method == SERVER_INFO
        return grpc.unary_unary_rpc_method_handler(tell_info if is_info else answer)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, Path]]:
    """Its address, and a key file, which it never looks at."""
    with tempfile.TemporaryDirectory() as name:
        address, key_file = f"unix:{name}/bare.sock", Path(name) / "client.toml"
        write_client_file(key_file, new_key("bench", [Permission.OBSERVE], time.time()), address)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Bare(),))
        server.add_insecure_port(address)
        await server.start()
        try:
            yield address, key_file
        finally:
            await server.stop(None)
