"""Stands where the compiling process stands: does what the name of the blueprint says, as a compiler might."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from esper.leyline.v1.kernel_pb2 import KernelVariant
from esper.tezzeret.limits import be_modest, end_with_parent

from tests.unit.ctl.small_library import written_kernel


def main(folder: Path) -> None:
    order = json.loads((folder / "order.json").read_text())
    end_with_parent(order["parent_id"])
    be_modest(order["memory_bytes"], order["niceness"])
    variant = KernelVariant.FromString(base64.b64decode(order["variant"]))
    what = variant.blueprint_id
    (folder / "pid").write_text(str(os.getpid()))
    if what == "succeed":
        name = written_kernel(folder / "kernel", variant)
        answer = {"artifact_id": name, "niceness": os.nice(0), "tmp": os.environ["TMPDIR"]}
        (folder / "answer.json").write_text(json.dumps(answer))
    elif what == "refuse":
        (folder / "answer.json").write_text(json.dumps({"detail": "no such blueprint", "is_final": True}))
    elif what == "die":
        print("a last word", flush=True)
        os.abort()
    elif what == "grow":
        print(len(bytearray(4 << 30)))
    elif what == "hang":
        compiler = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder / "compiler").write_text(str(compiler.pid))
        time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
