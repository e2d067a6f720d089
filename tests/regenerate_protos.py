"""Makes the generated code under clients/esper/leyline/v1 from protos/, and the API reference in esperd/docs/api.md:
`python -m tests.regenerate_protos`.

The generator is pinned by the test extra, so that the result is the same everywhere; a test compares it.
"""

import importlib.resources
import subprocess
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
THIRD_PARTY = PROTOS / "third_party"
TARGET = ROOT / "clients"
VALIDATE = "buf/validate/validate.proto"


def generate(target: Path) -> None:
    """Write the generated modules below `target`. Raises SystemExit with protoc's code when it fails."""
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("esper/leyline/v1/*.proto"))
    services = [name for name in files if name.endswith("_service.proto")]
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    paths = [f"-I{PROTOS}", f"-I{THIRD_PARTY}", f"-I{well_known}"]
    _protoc([*paths, f"--python_out={target}", f"--pyi_out={target}", *files])
    _protoc([*paths, f"--python_out={target / 'esper'}", f"--pyi_out={target / 'esper'}", VALIDATE])
    _adopt_validate(target)
    # Beside the interpreter, which need not be on the PATH.
    stubs = f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}"
    _protoc([*paths, f"--grpc_python_out={target}", stubs, f"--mypy_grpc_out=quiet:{target}", *services])


def _adopt_validate(target: Path) -> None:
    """The rules' own module lies in `esper.buf`: a top-level `buf` would belong to whoever installs it first."""
    for path in (target / "esper" / "leyline" / "v1").glob("*_pb2.py*"):
        text = path.read_text()
        path.write_text(text.replace("from buf.validate import", "from esper.buf.validate import"))


def _protoc(arguments: list[str]) -> None:
    code = protoc.main(["protoc", *arguments])
    if code != 0:
        sys.exit(code)


if __name__ == "__main__":
    generate(TARGET)
    # In a process of its own, which imports what has just been made.
    subprocess.run([sys.executable, "-m", "tests.apidoc"], cwd=ROOT, check=True)
