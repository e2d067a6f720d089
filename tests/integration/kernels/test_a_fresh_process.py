"""A kernel in a process that has never seen a compiler."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels import compiled
from tests.unit.kasmina.kernels.offered import offered

pytestmark = pytest.mark.timeout(400)  # compiles the kernel, once on a machine

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels.kernel import Joined
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from tests.unit.kasmina.kernels.offered import Witness
torch.manual_seed(0)
kernel = open_kernel(Path(sys.argv[1]), Witness(), this_machine(torch.device("cpu")))
kernel.warm_up()
module = standard_registry().get("residual_mlp").build((8, 8))
torch.nn.init.normal_(module.out.weight)
x = torch.randn(8, 8, requires_grad=True)
leaves = [x, *module.parameters()]
pairs = zip(*(torch.autograd.grad(f(x).square().sum(), leaves) for f in (module, Joined(kernel, module))))
error = max(float((a - b).norm() / a.norm()) for a, b in pairs)
compilers = [name for name in sys.modules if name.split(".")[:2] in (["torch", "_dynamo"], ["torch", "_inductor"])]
print(json.dumps({"error": error, "compilers": compilers}))
"""


def test_it_opens_and_computes_without_dynamo_inductor_or_a_compiler(tmp_path: Path):
    """PATH is empty, CXX is /bin/false, and no module of a compiler is imported; gradients are the module's."""
    artifact_id = offered(compiled("residual_mlp", (8, 8)), tmp_path)
    environment = {**os.environ, "PATH": "", "CXX": "/bin/false", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / artifact_id)],
        env=environment, capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["compilers"] == []
    assert found["error"] < 1e-5
