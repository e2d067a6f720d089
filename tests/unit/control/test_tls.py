"""Reading the daemon's certificates: what a server could not serve with is refused, and changes nothing."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from esperd.control.tls import Certificates as Shown
from esperd.control.tls import TlsFiles, read_pair
from esperd.leyline.errors import EsperdError
from tests.certificates import Certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Two CAs; certificates for a server, for a client only, of the past and of the future."""
    made = Certificates(tmp_path_factory.mktemp("tls"))
    made.ca()
    made.ca("other")
    made.signed("server", names="DNS:esperd.example,IP:127.0.0.1")
    made.signed("second")
    made.signed("client-only", usage="clientAuth")
    made.signed("past", valid=("20200101000000Z", "20200201000000Z"))
    made.signed("future", valid=("20900101000000Z", "20900201000000Z"))
    return made


def refusal(files: TlsFiles) -> str:
    with pytest.raises(EsperdError) as refused:
        read_pair(files, time.time())
    assert refused.value.reason == "TLS_INVALID"
    return refused.value.message


def test_a_good_pair_is_read(made: Certificates) -> None:
    """Its names and its end are known."""
    pair = read_pair(made.server(), time.time())
    assert pair.names == ("esperd.example", "127.0.0.1")
    assert time.time() + 86_400 < pair.not_after_unix_s < time.time() + 3 * 86_400


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("client-only", "not meant for a server"),
        ("past", "valid from 2020-01-01 00:00 to 2020-02-01 00:00 UTC only"),
        ("future", "valid from 2090"),
        ("absent", "No such file"),
    ],
)
def test_certificates_that_cannot_serve(made: Certificates, name: str, told: str) -> None:
    """Each is refused with its file and the reason."""
    message = refusal(made.server(name))
    assert told in message
    assert str(made.directory / name) in message


def _key_of_another(made: Certificates, files: TlsFiles) -> None:
    files.private_key.write_bytes((made.directory / "second.key").read_bytes())


def _readable_key(_: Certificates, files: TlsFiles) -> None:
    files.private_key.chmod(0o644)


def _encrypted_key(_: Certificates, files: TlsFiles) -> None:
    encrypted = files.private_key.with_suffix(".encrypted")
    command = ["openssl", "pkey", "-in", files.private_key, "-aes128", "-passout", "pass:x", "-out", encrypted]
    subprocess.run(command, check=True)
    encrypted.replace(files.private_key)


def _cut_key(_: Certificates, files: TlsFiles) -> None:
    files.private_key.write_text(files.private_key.read_text()[:100])


def _cut_certificate(_: Certificates, files: TlsFiles) -> None:
    files.certificate.write_text(files.certificate.read_text()[:300])


def _empty_ca(_: Certificates, files: TlsFiles) -> None:
    files.client_ca.write_text("")


def _ca_of_the_past(made: Certificates, files: TlsFiles) -> None:
    files.client_ca.write_bytes((made.directory / "past.pem").read_bytes())


def _huge(_: Certificates, files: TlsFiles) -> None:
    files.certificate.write_bytes(b"x" * ((1 << 20) + 1))


def _pipe(_: Certificates, files: TlsFiles) -> None:
    files.private_key.unlink()
    os.mkfifo(files.private_key, 0o600)


def _made_with(*algorithm: str) -> Callable[[Certificates, TlsFiles], None]:
    """A certificate of its own key, of another kind."""

    def make(_: Certificates, files: TlsFiles) -> None:
        command = ["openssl", "req", "-x509", "-newkey", *algorithm, "-nodes", "-subj", "/CN=x", "-days", "2"]
        places = ["-keyout", str(files.private_key), "-out", str(files.certificate)]
        subprocess.run([*command, *places], check=True, stderr=subprocess.DEVNULL)

    return make


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_key_of_another, "not the key of the certificate"),
        (_readable_key, "its mode is 0644"),
        (_encrypted_key, "encrypted"),
        (_cut_key, "no PEM private key, or a damaged one"),
        (_cut_certificate, "no PEM certificate, or a damaged one"),
        (_empty_ca, "no PEM certificate"),
        (_ca_of_the_past, "none of its certificates is valid now"),
        (_huge, "more than 1048576 bytes"),
        (_pipe, "not a regular file"),
        (_made_with("rsa:1024"), "RSA with 2048 bits or more"),
        (_made_with("ed25519"), "RSA with 2048 bits or more"),
        (_made_with("ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"), "RSA with 2048 bits or more"),
    ],
)
def test_spoiled_files(
    made: Certificates, tmp_path: Path, spoil: Callable[[Certificates, TlsFiles], None], told: str
) -> None:
    """Refused in plain words, which never quote a key; what is shown stays."""
    files = copy(made.server(), tmp_path)
    shown = Shown(files, time.time)
    before = shown.pair
    secret = files.private_key.read_text().splitlines()[1]
    spoil(made, files)
    with pytest.raises(EsperdError) as refused:
        shown.prepare()
    assert told in refused.value.message
    assert secret not in refused.value.message
    assert shown.pair is before


def test_a_group_may_read_the_key(made: Certificates, tmp_path: Path) -> None:
    """0640 is how distributions give keys to services."""
    files = copy(made.server(), tmp_path)
    files.private_key.chmod(0o640)
    read_pair(files, time.time())


def test_prepare_changes_nothing_and_swap_all(made: Certificates) -> None:
    """The two steps of a reload; other files may be named."""
    shown = Shown(made.server(), time.time)
    prepared = shown.prepare(made.server("second"))
    assert shown.pair.files == made.server()
    shown.swap(prepared)
    assert shown.pair is prepared
    assert shown.prepare().fingerprint == prepared.fingerprint


def copy(files: TlsFiles, into: Path) -> TlsFiles:
    copies = TlsFiles(into / "s.pem", into / "s.key", into / "ca.pem")
    for source, target in zip(
        (files.certificate, files.private_key, files.client_ca),
        (copies.certificate, copies.private_key, copies.client_ca),
        strict=True,
    ):
        target.write_bytes(source.read_bytes())
        target.chmod(0o600)
    return copies
