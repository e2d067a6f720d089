"""Stands where the compiling process stands: does what the variant's bytes say, as a compiler might."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from esper.tezzeret.limits import be_modest, end_with_parent


def main(folder: Path) -> None:
    order = json.loads((folder / "order.json").read_text())
    end_with_parent(order["parent_id"])
    be_modest(order["memory_bytes"], order["niceness"])
    what = base64.b64decode(order["variant"]).decode()
    (folder / "pid").write_text(str(os.getpid()))
    if what == "succeed":
        (folder / "kernel").mkdir()
        answer = {"artifact_id": "a" * 64, "niceness": os.nice(0), "tmp": os.environ["TMPDIR"]}
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
