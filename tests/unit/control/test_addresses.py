"""Where the daemon listens, and whose socket it leaves alone."""

import contextlib
import grp
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from esperd.control.addresses import bind, check_address
from esperd.leyline.errors import EsperdError


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:5000", "example.org:1", "127.0.0.1:99999", "127.0.0.1", "nonsense", "10.0.0.1:1", "tls:50051", "tls::1"],
)
def test_only_loopback(address: str) -> None:
    """Without TLS nothing but this machine may reach the daemon."""
    with pytest.raises(EsperdError) as refused:
        check_address(address)
    assert refused.value.reason == "ADDRESS_UNUSABLE"


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "localhost:50051", "[::1]:50051", "unix:/tmp/x.sock", "tls:0.0.0.0:50051", "tls:a.lab:1"]
)
def test_what_is_served(address: str) -> None:
    """Loopback, Unix sockets, and anything with TLS."""
    check_address(address)


def test_long_paths_are_refused() -> None:
    """The kernel would cut them."""
    with pytest.raises(EsperdError, match="100"):
        check_address("unix:/" + "x" * 100)


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[grpc.aio.Server]:
    made = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    yield made
    await made.stop(None)


async def test_a_stale_socket_is_replaced_and_protected(directory: Path) -> None:
    """A file that nobody answers on is removed; the new one lets owner and group in."""
    path = Path("s.sock")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    async with server() as made:
        bound = bind(made, f"unix:{path}")
        await made.start()
        assert bound == f"unix:{directory}/s.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


async def test_a_live_socket_is_left_alone(directory: Path) -> None:
    """Two daemons never share a path; the second is told."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as live:
        live.bind("s.sock")
        live.listen()
        async with server() as made:
            with pytest.raises(EsperdError, match="another daemon"):
                bind(made, "unix:s.sock")
        assert Path("s.sock").exists()


async def test_a_file_that_is_no_socket_is_left_alone(directory: Path) -> None:
    """Somebody's notes are not removed."""
    Path("s.sock").write_text("notes")
    async with server() as made:
        with pytest.raises(EsperdError, match="not a socket"):
            bind(made, "unix:s.sock")
    assert Path("s.sock").read_text() == "notes"


async def test_a_taken_port_is_told(directory: Path) -> None:
    """Without SO_REUSEPORT the second server fails loudly."""
    async with server() as first, server() as second:
        address = bind(first, "127.0.0.1:0")
        assert not address.endswith(":0")
        with pytest.raises(EsperdError, match="taken"):
            bind(second, address)


async def test_the_socket_of_a_group(directory: Path) -> None:
    """It is given to the group that is named; one that is not there is told, and no socket is left."""
    group = grp.getgrgid(os.getgid()).gr_name
    async with server() as made:
        bind(made, "unix:s.sock", group=group)
        assert Path("s.sock").stat().st_gid == os.getgid()
        with pytest.raises(EsperdError, match="cannot be given to the group nobody-has-this"):
            bind(made, "unix:t.sock", group="nobody-has-this")
        assert not Path("t.sock").exists()


async def test_a_socket_is_never_open_to_others(directory: Path) -> None:
    """Not even between being made and being given to its group, whatever the umask of who started the daemon."""
    socket_file = directory / "leyline.sock"
    modes: list[int] = []

    class Server:
        """A server, looked at as soon as it listens."""

        def __init__(self) -> None:
            self.real = grpc.aio.server()

        def add_insecure_port(self, address: str) -> int:
            port = self.real.add_insecure_port(address)
            modes.append(stat.S_IMODE(socket_file.stat().st_mode))
            return port

    server = Server()
    before = os.umask(0)
    try:
        bind(server, f"unix:{socket_file}")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
        await server.real.stop(None)
    assert modes == [0o660]
