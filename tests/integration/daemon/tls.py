"""A daemon that serves over TLS as well: its files, what it shows of them, and where."""

import json
import socket
import ssl
from pathlib import Path

from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials

from tests.certificates import Certificates
from tests.integration.daemon.process import DaemonProcess

_CALL_S = 30.0


class Tls:
    """The certificates of such a daemon: the one it begins with, two to renew it with, and a client's."""

    def __init__(self, folder: Path) -> None:
        self.files = Certificates(folder / "tls")
        self.files.ca()
        for name in ("server", "one", "two"):
            self.files.signed(name)
        self.files.signed("client", usage="clientAuth", names="DNS:client.example")
        names = ("tls_certificate=tls/server.pem", "tls_private_key=tls/server.key", "tls_client_ca=tls/ca.pem")
        listen = f'listen=["unix:{folder}/run/leyline.sock", "tls:127.0.0.1:0"]'
        self.overrides = [f"control.{override}" for override in (listen, *names)]

    def client(self, daemon: DaemonProcess) -> AsyncClient:
        """A new connection over TLS."""
        return AsyncClient(
            tls_address(daemon), Credentials.load(daemon.key_file), tls=self.files.client(), timeout_s=_CALL_S
        )

    def install(self, name: str) -> None:
        """Put one of the two where the daemon looks."""
        self.files.install(name, "server")

    def tear(self, name: str) -> None:
        """Put only a certificate there, without its key."""
        replace_file(self.files.directory / "server.pem", (self.files.directory / f"{name}.pem").read_text())

    def expected(self, name: str) -> bytes:
        """The certificate as it is shown."""
        return ssl.PEM_cert_to_DER_cert((self.files.directory / f"{name}.pem").read_text())

    def shown(self, daemon: DaemonProcess) -> bytes:
        """The certificate that a new connection is shown now."""
        context = ssl.create_default_context(cafile=self.files.directory / "ca.pem")
        context.load_cert_chain(self.files.directory / "client.pem", self.files.directory / "client.key")
        context.set_alpn_protocols(["h2"])
        host, port = tls_address(daemon).removeprefix("tls:").split(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=host) as wrapped,
        ):
            found = wrapped.getpeercert(binary_form=True)
        assert found is not None
        return found


def tls_address(daemon: DaemonProcess) -> str:
    """Where it serves over TLS; the system chose the port."""
    line = next(line for line in daemon.log.splitlines() if '"addresses"' in line)
    return next(address for address in json.loads(line)["addresses"] if address.startswith("tls:"))


def replace_file(path: Path, text: str) -> None:
    """Write beside it and rename over it."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.chmod(0o600)
    beside.replace(path)
