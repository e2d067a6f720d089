"""Compiling for real: the command with a key, and a blueprint of one's own."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from esperd.kasmina.kernels.kernel import Joined
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from esperd.leyline import kernel_documents
from tests.integration.kernels.averaging import AVERAGING
from tests.unit.kasmina.kernels.offered import Witness, offered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SECRET = bytes(range(32))
OWN = """
import sys
from pathlib import Path
from esper.tezzeret.compile import CompileRequest, compile_kernel
from tests.integration.kernels.averaging import AVERAGING
folder = Path(sys.argv[1])
(folder / "manifest.binpb").write_bytes(compile_kernel(CompileRequest(AVERAGING, (8,), 1), folder).manifest)
"""


def test_a_signed_kernel(tmp_path: Path) -> None:
    """The command leaves a manifest that names its libraries, and the key's signature over its exact bytes."""
    key = tmp_path / "compiler.key"
    key.touch(mode=0o600)
    key.write_text(f'key_id = "k1"\nprincipal = "compiler"\nsecret = "{SECRET.hex()}"\n')
    folder = tmp_path / "kernel"
    spec = ["--site-spec", "9x4", "--batch", "6", "-p", "expansion=1", "--strategy", "conservative"]
    command = [sys.executable, "-m", "esper.cli", "tezzeret", "compile", "residual_mlp", *spec]
    done = subprocess.run(
        [*command, "--key", str(key), "-o", str(folder)], capture_output=True, text=True, timeout=350, check=True
    )
    data = (folder / kernel_documents.MANIFEST_NAME).read_bytes()
    manifest = kernel_documents.read_manifest(data)
    signature = kernel_documents.read_signature((folder / kernel_documents.MANIFEST_SIGNATURE_NAME).read_bytes())
    assert done.stdout.startswith(manifest.artifact_id)
    assert done.stderr == ""
    assert signature.key_id == "k1"
    assert kernel_documents.is_signed(SECRET, kernel_documents.MANIFEST_DOMAIN, data, signature.hmac)
    assert (manifest.hint_batch, manifest.min_batch, manifest.max_batch) == (6, 1, 96)
    assert manifest.variant.parameters == {"expansion": 1.0}
    assert manifest.strategy == "conservative"
    for file in manifest.files.values():
        content = (folder / file.name).read_bytes()
        assert len(content) == file.num_bytes
        assert str(tmp_path).encode() not in content


def test_buffers_and_frozen_parameters(tmp_path: Path) -> None:
    """A buffer that changes comes out as the eager module leaves it; a parameter that is frozen gets no gradient."""
    made = tmp_path / "made"
    made.mkdir()
    subprocess.run([sys.executable, "-c", OWN, str(made)], capture_output=True, timeout=350, check=True)
    kernel = open_kernel(tmp_path / offered(made, tmp_path), Witness(), this_machine(torch.device("cpu")))
    assert kernel.manifest.mutated_buffers == ("average",)
    module = AVERAGING.build((2, 8)).train()
    twin = copy.deepcopy(module)
    joined = Joined(kernel, module)
    for batch in (1, 2, 7, 32):
        x = torch.randn(batch, 8, requires_grad=True)
        found, wanted = joined(x), twin(x)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(dict(module.named_buffers()), dict(twin.named_buffers()))
        g = torch.randn_like(wanted)
        pairs = [
            torch.autograd.grad(delta, [x, owner.linear.weight, owner.linear.bias], g)
            for delta, owner in ((found, module), (wanted, twin))
        ]
        torch.testing.assert_close(*pairs)
