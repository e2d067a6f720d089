"""An empty grpc.aio server on a Unix socket: what the machine can do before anybody checks anything."""

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from esperd.leyline.keyring import new_key, write_client_file
from esperd.leyline.vocabulary import Permission


class _Empty(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def answer(_: bytes, __: Any) -> bytes:
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, Path]]:
    """Its address, and a key file, which it never looks at."""
    with tempfile.TemporaryDirectory() as name:
        address, key_file = f"unix:{name}/bare.sock", Path(name) / "client.toml"
        write_client_file(key_file, new_key("bench", [Permission.OBSERVE], time.time()), address)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Empty(),))
        server.add_insecure_port(address)
        await server.start()
        try:
            yield address, key_file
        finally:
            await server.stop(None)
