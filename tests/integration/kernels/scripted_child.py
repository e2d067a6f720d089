"""Stands where the compiling process of `esper tezzeret serve` stands: a kernel of random bytes, at once."""

import base64
import json
import sys
from pathlib import Path

from esper.leyline.v1.kernel_pb2 import KernelVariant

from esperd.leyline.kernel_documents import variant_of
from tests.integration.control.kernel_stage import write_kernel


def main(folder: Path) -> None:
    order = json.loads((folder / "order.json").read_text())
    variant = variant_of(KernelVariant.FromString(base64.b64decode(order["variant"])))
    files = write_kernel(folder / "kernel", variant, hint=order["hint_batch"])
    (folder / "answer.json").write_text(json.dumps({"artifact_id": files.artifact_id}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
