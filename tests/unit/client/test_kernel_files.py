"""A kernel's directory as the SDK reads, sends and writes it."""

import json
from pathlib import Path

import pytest
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError
from esper.client.kernel_files import (
    CHUNK_BYTES,
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    REPORT_NAME,
    KernelFiles,
    KernelFolder,
)
from esper.client.signing import sign_manifest
from esper.leyline.v1 import kernel_pb2 as pb
from esper.leyline.v1 import kernel_service_pb2

from esperd.leyline.kernel_documents import (
    MANIFEST_DOMAIN,
    artifact_id_of,
    is_signed,
    read_manifest,
    read_signature,
    write_signature,
)
from esperd.leyline.kernels import Signature
from tests.integration.control.kernel_stage import write_kernel

CREDENTIALS = Credentials("k", "p", bytes(range(32)))


def downloaded(files: KernelFiles) -> list[kernel_service_pb2.DownloadKernelResponse]:
    """The parts of its libraries, in order."""
    found = []
    for role, path in sorted(files.paths.items()):
        data = path.read_bytes()
        for offset in range(0, len(data), 100_000):
            piece = data[offset : offset + 100_000]
            found.append(kernel_service_pb2.DownloadKernelResponse(role=role, offset=offset, data=piece))
    return found


def fill(folder: KernelFolder, parts: list[kernel_service_pb2.DownloadKernelResponse]) -> KernelFiles:
    for part in parts:
        folder.write(part)
    return folder.finish()


def answer(files: KernelFiles) -> kernel_service_pb2.GetKernelResponse:
    return kernel_service_pb2.GetKernelResponse(
        manifest=files.manifest, manifest_signature=sign_manifest(CREDENTIALS, files.manifest), report=b"report"
    )


def test_names_and_signatures_are_those_of_the_daemon(tmp_path: Path) -> None:
    """The SDK cannot import the daemon's words, so it is held to them here."""
    files = write_kernel(tmp_path / "k")
    assert files.artifact_id == artifact_id_of(files.manifest)
    names = {file.name for file in read_manifest(files.manifest).files.values()}
    assert {path.name for path in files.paths.values()} == names
    signature = sign_manifest(CREDENTIALS, files.manifest)
    assert is_signed(CREDENTIALS.secret, MANIFEST_DOMAIN, files.manifest, signature.hmac)
    written = write_signature(Signature("k", signature.hmac))
    (tmp_path / "k" / MANIFEST_SIGNATURE_NAME).write_bytes(written)
    assert KernelFiles.read(tmp_path / "k").signature == signature


def test_only_what_is_missing_is_sent(tmp_path: Path) -> None:
    """From where each library stands, in chunks that the contract allows."""
    files = write_kernel(tmp_path / "k")
    progress = [
        kernel_service_pb2.UploadProgress(role=1, num_received=300_001, num_bytes=300_001),  # type: ignore[arg-type]
        kernel_service_pb2.UploadProgress(role=2, num_received=7, num_bytes=300_002),  # type: ignore[arg-type]
    ]
    chunks = list(files.chunks(progress))
    assert {chunk.role for chunk in chunks} == {2}
    assert [chunk.offset for chunk in chunks] == [7, 7 + CHUNK_BYTES]
    data = b"".join(chunk.data for chunk in chunks)
    assert data == files.paths[pb.KERNEL_FILE_ROLE_BACKWARD].read_bytes()[7:]


def test_what_is_downloaded_can_be_uploaded(tmp_path: Path) -> None:
    """The directory that is written is one that is read, also when an earlier download was cut off."""
    files = write_kernel(tmp_path / "k")
    cut = KernelFolder(tmp_path / "copy", answer(files))
    cut.write(downloaded(files)[0])
    copy = fill(KernelFolder(tmp_path / "copy", answer(files)), downloaded(files))
    assert (copy.manifest, copy.signature) == (files.manifest, sign_manifest(CREDENTIALS, files.manifest))
    assert (tmp_path / "copy" / REPORT_NAME).read_bytes() == b"report"
    assert read_signature((tmp_path / "copy" / MANIFEST_SIGNATURE_NAME).read_bytes()).key_id == "k"
    assert not list((tmp_path / "copy").glob("*.part"))


def test_a_download_that_is_something_else(tmp_path: Path) -> None:
    """A missing part, another byte, a library that nobody named: nothing gets its name."""
    files = write_kernel(tmp_path / "k")
    parts = downloaded(files)
    for number, wrong in enumerate((parts[1:], parts[:-1])):
        folder = KernelFolder(tmp_path / f"copy-{number}", answer(files))
        with pytest.raises(LeylineError, match="E-CLI-004"):
            fill(folder, wrong)
    folder = KernelFolder(tmp_path / "other", answer(files))
    with pytest.raises(LeylineError, match="does not name"):
        folder.write(kernel_service_pb2.DownloadKernelResponse(role=9, data=b"x"))  # type: ignore[arg-type]
    with pytest.raises(LeylineError, match="manifest is none"):
        KernelFolder(tmp_path / "none", kernel_service_pb2.GetKernelResponse(manifest=b"\xff"))


def test_a_directory_that_holds_no_kernel(tmp_path: Path) -> None:
    """KERNEL_FOLDER_INVALID names what is wrong with it."""
    with pytest.raises(LeylineError, match="No such file") as caught:
        KernelFiles.read(tmp_path)
    assert caught.value.reason == "KERNEL_FOLDER_INVALID"
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff")
    with pytest.raises(LeylineError, match="is no manifest"):
        KernelFiles.read(tmp_path)
    files = write_kernel(tmp_path / "k")
    (tmp_path / "k" / MANIFEST_SIGNATURE_NAME).write_text(json.dumps({"key_id": "k"}))
    with pytest.raises(LeylineError, match="is no signature"):
        KernelFiles.read(tmp_path / "k")
    files.paths[pb.KERNEL_FILE_ROLE_FORWARD].unlink()
    with pytest.raises(LeylineError, match=r"forward-.* is missing"):
        KernelFiles.read(tmp_path / "k")
