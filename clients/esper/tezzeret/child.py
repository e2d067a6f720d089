"""The process that compiles one kernel: reads its order, limits itself, compiles, and leaves its answer.

`python -m esper.tezzeret.child DIRECTORY`, started by `worker.py`. Without a directory it prints what kernels made here
are for. Everything that torch prints goes where the worker has sent it.
"""

import base64
import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from esper.tezzeret.limits import be_modest, end_with_parent
from esper.tezzeret.worker import ANSWER_NAME, KERNEL_NAME, ORDER_NAME


def main() -> None:
    """Carry out the order in the directory that is named, or tell the machine's facts."""
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        order = json.loads((folder / ORDER_NAME).read_text())
        end_with_parent(order["parent_id"])
        be_modest(order["memory_bytes"], order["niceness"])
        _leave(folder, _answer(order, folder / KERNEL_NAME))
    else:
        print(json.dumps(_machines()))


def _answer(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    try:
        return _compiled(order, folder)
    except Exception as error:  # noqa: BLE001 - torch's compiler may raise anything; whatever it is, it is the answer
        traceback.print_exc()
        words = str(error).strip().split("\n")[0]
        return {"detail": f"{type(error).__name__}: {words}", "is_final": _is_final(error)}


def _compiled(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    from esper.leyline.v1.kernel_pb2 import KernelVariant
    from esper.tezzeret.compile import CompileRequest, compile_kernel, wanted_variant
    from esper.tezzeret.lowering import Strategy
    from esperd.kasmina.blueprints.registry import standard_registry
    from esperd.leyline.kernel_documents import MANIFEST_NAME, variant_of
    from esperd.leyline.kernels import misfits

    wanted = variant_of(KernelVariant.FromString(base64.b64decode(order["variant"])))
    request = CompileRequest(
        descriptor=standard_registry().get(wanted.blueprint_id),
        tail_shape=wanted.tail_shape,
        hint_batch=order["hint_batch"],
        parameters=wanted.parameters,
        dtype=wanted.dtype,
        autocast_dtype=wanted.autocast_dtype,
        device_type=wanted.device_type,
        strategy=Strategy(order["strategy"]),
    )
    wrong = misfits(wanted_variant(request), wanted)
    if wrong:
        return {"detail": f"what is compiled here is for another variant: {'; '.join(wrong)}", "is_final": True}
    made = compile_kernel(request, folder)
    (folder / MANIFEST_NAME).write_bytes(made.manifest)
    return {"artifact_id": made.artifact_id}


def _is_final(error: Exception) -> bool:
    """Whether the error is the wish's own, so that no other strategy helps."""
    from esper.tezzeret.capture import CaptureError
    from esperd.kasmina.blueprints.descriptor import BlueprintParameterError, SiteNotAdmissibleError
    from esperd.kasmina.blueprints.registry import UnknownBlueprintError

    return isinstance(error, CaptureError | BlueprintParameterError | SiteNotAdmissibleError | UnknownBlueprintError)


def _leave(folder: Path, answer: dict[str, Any]) -> None:
    """The answer appears whole or not at all."""
    partial = folder / f".{ANSWER_NAME}"
    partial.write_text(json.dumps(answer))
    partial.replace(folder / ANSWER_NAME)


def _machines() -> list[dict[str, str]]:
    import torch

    from esperd.kasmina.kernels.machine import this_machine

    types = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [asdict(this_machine(torch.device(name))) for name in types]


if __name__ == "__main__":
    main()
