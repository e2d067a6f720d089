"""Writes the manifest of a kernel as the bytes that name it and are signed.

Any thread; knows neither torch nor files. How they are read: `esperd/leyline/kernel_documents.py`.
"""

from typing import Any

from esper.leyline.v1 import kernel_pb2 as pb
from esperd.leyline.kernel_documents import SCHEMA, read_manifest, variant_message
from esperd.leyline.kernels import KernelManifest


def write_manifest(manifest: KernelManifest) -> bytes:
    """The manifest's bytes; its `artifact_id` is not part of them.

    Raises:
        EsperdError: KERNEL_MANIFEST_INVALID, when it contradicts itself.
    """
    message = pb.KernelManifest(
        schema=SCHEMA,
        variant=variant_message(manifest.variant),
        min_batch=manifest.min_batch,
        max_batch=manifest.max_batch,
        hint_batch=manifest.hint_batch,
        output_index=manifest.output_index,
        mutated_buffers=manifest.mutated_buffers,
        saved=[pb.SavedTensor(is_input=saved.is_input, index=saved.index) for saved in manifest.saved],
        gradients=manifest.gradients,
        parameter_gradients=manifest.parameter_gradients,
        draws_random=manifest.draws_random,
        strategy=manifest.strategy,
        compile_s=manifest.compile_s,
        compiler=manifest.compiler,
        options=manifest.options,
    )
    for one in manifest.inputs:
        kind: Any = int(one.kind)
        message.inputs.add(kind=kind, name=one.name, dtype=one.dtype, shape=one.shape, requires_grad=one.requires_grad)
    for role, file in sorted(manifest.files.items()):
        number: Any = int(role)
        message.files.add(role=number, sha256=bytes.fromhex(file.sha256), num_bytes=file.num_bytes)
    message.create_time.FromNanoseconds(int(manifest.create_unix_s * 1e9))
    data = message.SerializeToString(deterministic=True)
    read_manifest(data)
    return data
