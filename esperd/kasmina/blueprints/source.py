"""The source that a blueprint is built by, as a digest: a kernel compiled from other source is another kernel.

Any thread; reads source files once for each package.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor


class SourceUnknownError(ValueError):
    """The source of a blueprint cannot be read, so that no kernel can be bound to it."""


def source_sha256(descriptor: BlueprintDescriptor) -> str:
    """SHA-256 (hex) over the sources of all modules of the package that the factory's module belongs to.

    Of the module alone when it belongs to no package. Names and sizes are part of it.

    Raises:
        SourceUnknownError: there is no such module, or its files cannot be read.
    """
    factory = descriptor.factory
    while isinstance(factory, functools.partial):
        factory = factory.func
    module = getattr(factory, "__module__", None)
    if not isinstance(module, str):
        raise SourceUnknownError(f"the factory of blueprint {descriptor.blueprint_id} names no module")
    return _module_sha256(module)


@functools.cache
def _module_sha256(module: str) -> str:
    try:
        digest = hashlib.sha256()
        for path in _sources(module):
            data = path.read_bytes()
            digest.update(f"{path.name}\0{len(data)}\0".encode())
            digest.update(data)
    except (OSError, ImportError, ValueError) as error:
        raise SourceUnknownError(f"the source of module {module} cannot be read: {error}") from error
    return digest.hexdigest()


def _sources(module: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.has_location or spec.origin is None:
        raise ImportError("it has no file")
    origin = Path(spec.origin)
    if not spec.parent:
        yield origin
    else:
        yield from sorted(origin.parent.glob("*.py"))
