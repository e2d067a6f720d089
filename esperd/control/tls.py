"""The daemon's certificates: read, checked, shown to every new connection, and exchanged while it serves.

Event loop, except that gRPC asks for a changed pair on a thread of its own (`credentials`): it gets the reference that
stands, and never waits or reads a file. Mutual TLS only: a client must show a certificate of the client CA. A pair that
is broken never takes the place of one that works. Design 07, TLS.
"""

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from esperd.config.settings import ControlSettings
from esperd.leyline.errors import EsperdError

MAX_FILE_BYTES = 1 << 20
MIN_RSA_BITS = 2048
_FORBIDDEN_MODE = 0o027
"""A private key may be read by its owner and a group, and changed by its owner alone."""
_SERVER_AUTH = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files are."""

    certificate: Path
    """The server's certificate, and those between it and its CA."""
    private_key: Path
    client_ca: Path
    """The CAs whose certificates clients may show."""

    @classmethod
    def of(cls, control: ControlSettings) -> "TlsFiles":
        """The files that the configuration names."""
        return cls(Path(control.tls_certificate), Path(control.tls_private_key), Path(control.tls_client_ca))


@dataclass(frozen=True, slots=True)
class TlsPair:
    """Certificate, key and client CAs as they were read together, checked against each other."""

    files: TlsFiles
    configuration: Any
    """What gRPC shows to new connections (grpc.ServerCertificateConfiguration)."""
    fingerprint: str
    """The SHA-256 of each file; tells one pair from another."""
    names: tuple[str, ...]
    """The host names and addresses that the certificate is for."""
    not_after_unix_s: float
    """The earliest end among the server's certificates."""


class Certificates:
    """The pair that new connections are shown."""

    def __init__(self, files: TlsFiles, clock: Callable[[], float]) -> None:
        """Read the first pair. `clock` gives Unix seconds. Raises EsperdError TLS_INVALID."""
        self._clock = clock
        self._pair = read_pair(files, clock())

    @property
    def pair(self) -> TlsPair:
        """What is shown now."""
        return self._pair

    def prepare(self, files: TlsFiles | None = None) -> TlsPair:
        """Read and check what the files hold now, of the present files or of others; changes nothing.

        Raises EsperdError TLS_INVALID.
        """
        return read_pair(files or self._pair.files, self._clock())

    def swap(self, pair: TlsPair) -> None:
        """Show another pair from the next connection on; those that stand go on undisturbed."""
        self._pair = pair

    def credentials(self) -> grpc.ServerCredentials:
        """What one listening address is bound with; each needs its own."""
        first = self._pair
        shown = first.fingerprint

        def changed() -> Any:
            # Only a change is told: for each pair it is told of, gRPC builds its TLS context anew.
            nonlocal shown
            pair = self._pair
            if pair.fingerprint == shown:
                return None
            shown = pair.fingerprint
            return pair.configuration

        return grpc.dynamic_ssl_server_credentials(first.configuration, changed, require_client_authentication=True)


def read_pair(files: TlsFiles, now_unix_s: float) -> TlsPair:
    """Read the three files and check that a server can serve with them. Raises EsperdError TLS_INVALID."""
    certificate, ca = _read(files.certificate), _read(files.client_ca)
    key = _read(files.private_key, is_private=True)
    chain = _certificates(files.certificate, certificate)
    _check_key(files.private_key, key, chain[0])
    _check_server(files.certificate, chain, now_unix_s)
    if not any(_is_within(item, now_unix_s) for item in _certificates(files.client_ca, ca)):
        raise _invalid(files.client_ca, "none of its certificates is valid now")
    return TlsPair(
        files=files,
        configuration=grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca),
        fingerprint="".join(hashlib.sha256(part).hexdigest() for part in (certificate, key, ca)),
        names=_names(chain[0]),
        not_after_unix_s=min(item.not_valid_after_utc.timestamp() for item in chain),
    )


def _read(path: Path, *, is_private: bool = False) -> bytes:
    try:
        # Without waiting: the loop that reads them must not hang on a pipe that nobody writes to.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _invalid(path, "it is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from error
    mode = stat.S_IMODE(status.st_mode)
    if is_private and mode & _FORBIDDEN_MODE:
        raise _invalid(path, f"its mode is {mode:04o}; it must be 0600, or 0640 for a group that may read it")
    if len(content) > MAX_FILE_BYTES:
        raise _invalid(path, f"it has more than {MAX_FILE_BYTES} bytes")
    return content


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        for certificate in certificates:
            # They are read when they are asked for; what is damaged is to be told here.
            _ = certificate.extensions, certificate.public_key()
        return certificates
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise _invalid(path, "it holds no PEM certificate, or a damaged one") from None


def _check_key(path: Path, pem: bytes, certificate: x509.Certificate) -> None:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise _invalid(path, "it is encrypted; a daemon has nobody to ask for a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        # What the parser says may quote the key.
        raise _invalid(path, "it holds no PEM private key, or a damaged one") from None
    if not _can_serve(key):
        raise _invalid(path, "gRPC can serve with RSA with 2048 bits or more, or EC on P-256 or P-384")
    if _public_bytes(key.public_key()) != _public_bytes(certificate.public_key()):
        raise _invalid(path, "it is not the key of the certificate")


def _can_serve(key: object) -> bool:
    """Whether gRPC can sign with it and its clients take that; with any other every handshake would fail."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)


def _public_bytes(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _check_server(path: Path, chain: list[x509.Certificate], now_unix_s: float) -> None:
    for certificate in chain:
        if not _is_within(certificate, now_unix_s):
            first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            raise _invalid(path, f"it is valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC only")
    try:
        usage = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # without the extension a certificate is good for any use
    if _SERVER_AUTH not in usage:
        raise _invalid(path, "it is not meant for a server (extended key usage serverAuth)")


def _is_within(certificate: x509.Certificate, now_unix_s: float) -> bool:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return first.timestamp() <= now_unix_s <= last.timestamp()


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *alternative.get_values_for_type(x509.DNSName),
        *map(str, alternative.get_values_for_type(x509.IPAddress)),
    )


def _invalid(path: Path, detail: str) -> EsperdError:
    return EsperdError("TLS_INVALID", detail=f"{os.fspath(path)}: {detail}")
