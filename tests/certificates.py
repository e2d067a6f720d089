"""Certificates for tests, made by openssl: CAs, and what they sign."""

import subprocess
from pathlib import Path

from esper.client import tls as client_tls

from esperd.control.tls import TlsFiles

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificates:
    """A directory of PEM files: `NAME.pem` and `NAME.key`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)

    def ca(self, name: str = "ca") -> Path:
        """A self-signed CA."""
        self._openssl("req", "-x509", *_CURVE, "-days", "3", "-subj", f"/CN={name}", *self._new(name))
        return self.directory / f"{name}.pem"

    def signed(
        self,
        name: str,
        issuer: str = "ca",
        *,
        names: str = "DNS:localhost,IP:127.0.0.1",
        usage: str = "serverAuth,clientAuth",
        valid: tuple[str, str] | None = None,
        subject: str | None = None,
    ) -> None:
        """A certificate of a CA; `valid` are its two ends (YYYYMMDDHHMMSSZ), two days from now unless given."""
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        self._openssl("req", *_CURVE, "-subj", subject or f"/CN={name}", *self._new(name, request))
        extensions.write_text(f"[x]\nsubjectAltName={names}\nextendedKeyUsage={usage}\n")
        when = ("-days", "2") if valid is None else ("-startdate", valid[0], "-enddate", valid[1])
        self._sign(issuer, request, self.directory / f"{name}.pem", extensions, when)

    def server(self, name: str = "server", ca: str = "ca") -> TlsFiles:
        """The files of a daemon."""
        return TlsFiles(*(self.directory / file for file in (f"{name}.pem", f"{name}.key", f"{ca}.pem")))

    def client(self, name: str = "client", ca: str = "ca") -> client_tls.TlsFiles:
        """The files of a client."""
        return client_tls.TlsFiles(*(self.directory / file for file in (f"{ca}.pem", f"{name}.pem", f"{name}.key")))

    def install(self, name: str, target: str) -> None:
        """Put a certificate and its key where another one is, each file at once, as a renewal does."""
        for suffix in (".pem", ".key"):
            fresh = self.directory / f"{target}{suffix}.new"
            fresh.write_bytes((self.directory / f"{name}{suffix}").read_bytes())
            fresh.chmod(0o600)
            fresh.replace(self.directory / f"{target}{suffix}")

    def _new(self, name: str, out: Path | None = None) -> tuple[str, ...]:
        key = self.directory / f"{name}.key"
        return "-keyout", str(key), "-out", str(out or self.directory / f"{name}.pem")

    def _sign(self, issuer: str, request: Path, out: Path, extensions: Path, when: tuple[str, ...]) -> None:
        """`openssl ca`, which unlike `openssl x509` takes both ends of the validity."""
        database, config = self.directory / "index.txt", self.directory / "ca.cnf"
        database.touch()
        config.write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={database}\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n"
            f"new_certs_dir={self.directory}\nunique_subject=no\n[p]\ncommonName=optional\n"
        )
        signer = ("-cert", str(self.directory / f"{issuer}.pem"), "-keyfile", str(self.directory / f"{issuer}.key"))
        files = ("-in", str(request), "-out", str(out), "-extfile", str(extensions), "-extensions", "x")
        self._openssl("ca", "-batch", "-notext", "-config", str(config), *signer, *files, *when)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.directory)
