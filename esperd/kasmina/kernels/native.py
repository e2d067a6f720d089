"""A kernel's libraries called through their C interface, which lets other threads run while they compute.

Loader thread. torch's own call keeps the interpreter to itself for a whole run, many milliseconds of a large kernel,
and training would wait; it costs a quarter of this one, so seeds use it. Every private name of torch's that this takes
stands here. Knows only libraries that are open already, so it decides nothing about trust: see `opening.py`.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esperd.leyline.vocabulary import KernelFileRole

_SYSTEM = ctypes.CDLL(None)
_SYSTEM.dlopen.argtypes, _SYSTEM.dlopen.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
_SYSTEM.dlclose.argtypes, _SYSTEM.dlclose.restype = [ctypes.c_void_p], ctypes.c_int

_AOTI: Any = torch._C._aoti
_HANDLES_OF, _TENSORS_OF = "unsafe_alloc_void_ptrs_from_tensors", "alloc_tensors_by_stealing_from_void_ptrs"
_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)

_ADDRESSES = ctypes.POINTER(ctypes.c_void_p)
_SIZE = ctypes.c_size_t
_CALLS: Mapping[str, list[Any]] = {
    "CreateWithDevice": [_ADDRESSES, _SIZE, ctypes.c_char_p, ctypes.c_char_p],
    "GetNumInputs": [ctypes.c_void_p, ctypes.POINTER(_SIZE)],
    "GetNumOutputs": [ctypes.c_void_p, ctypes.POINTER(_SIZE)],
    "Run": [ctypes.c_void_p, _ADDRESSES, _SIZE, _ADDRESSES, _SIZE, ctypes.c_void_p, ctypes.c_void_p],
    "Delete": [ctypes.c_void_p],
}
"""What is used of each `AOTInductorModelContainer...`, with its arguments; all answer zero or have failed."""
_LAST_ERROR = "AOTInductorGetLastError"
"""Not in every version: without it the reason is on standard error only, where all versions write it."""


@contextmanager
def held_open(path: Path, flags: int = os.RTLD_NOW | os.RTLD_LOCAL) -> Iterator[int | None]:
    """Have the system open a library, in a call that lets other threads run; its handle, None when it does not open."""
    handle = _SYSTEM.dlopen(str(path).encode(), flags)
    try:
        yield handle
    finally:
        if handle:
            _SYSTEM.dlclose(handle)


class NativeLibrary:
    """An open library with a container of its own; one call at a time."""

    def __init__(self, handle: int, path: Path) -> None:
        """Make the container.

        Raises:
            AttributeError: the library's torch has no such interface.
            RuntimeError: what the library said.
        """
        self._name = path.name
        self._library = ctypes.CDLL(str(path), handle=handle)
        self._calls = {name: self._found(name, arguments) for name, arguments in _CALLS.items()}
        self._container = ctypes.c_void_p()
        self._call("CreateWithDevice", ctypes.byref(self._container), 1, b"cpu", None)
        try:
            self._num_inputs, self._num_outputs = self._number("GetNumInputs"), self._number("GetNumOutputs")
        except RuntimeError:
            self.close()
            raise

    def run(self, inputs: Sequence[Tensor], /) -> list[Tensor]:
        """Compute, as `Runner.run` does.

        Raises:
            RuntimeError: what the library said.
        """
        if len(inputs) != self._num_inputs:  # the library would end the process
            raise RuntimeError(f"{self._name}: it takes {self._num_inputs} inputs, not {len(inputs)}")
        given = [_address(capsule, None) for capsule in getattr(_AOTI, _HANDLES_OF)(list(inputs))]
        taken = (ctypes.c_void_p * len(given))(*given)
        outputs = (ctypes.c_void_p * self._num_outputs)()
        try:
            # The library owns the inputs from here. Whether it clears their places is not said: one that failed before
            # it took them leaves them in memory, which is better than to free what another one has freed.
            self._call("Run", self._container, taken, len(taken), outputs, len(outputs), None, None)
        finally:
            found = _owned(outputs)
        return found

    def close(self) -> None:
        """Take the container down; nothing runs in it."""
        self._call("Delete", self._container)

    def _number(self, name: str) -> int:
        number = _SIZE()
        self._call(name, self._container, ctypes.byref(number))
        return number.value

    def _found(self, name: str, arguments: list[Any]) -> Any:
        call = getattr(self._library, f"AOTInductorModelContainer{name}")
        call.argtypes, call.restype = arguments, ctypes.c_int32
        return call

    def _call(self, name: str, *arguments: object) -> None:
        if self._calls[name](*arguments):
            raise RuntimeError(f"{self._name}: {self._last_error() or f'{name} failed'}")

    def _last_error(self) -> str:
        told = ctypes.c_char_p()
        if hasattr(self._library, _LAST_ERROR):
            getattr(self._library, _LAST_ERROR)(ctypes.byref(told))
        return (told.value or b"").decode(errors="replace")


@contextmanager
def libraries(paths: Mapping[KernelFileRole, Path]) -> Iterator[dict[KernelFileRole, NativeLibrary] | None]:
    """A kernel's libraries; None when one is not open already, or this torch has not the names that it takes.

    Raises:
        RuntimeError: what a library said.
    """
    with ExitStack() as stack:
        try:
            found = {role: _entered(stack, path) for role, path in paths.items()} if _has_names() else None
        except (AttributeError, OSError):
            found = None
        yield found


def _has_names() -> bool:
    return hasattr(_AOTI, _HANDLES_OF) and hasattr(_AOTI, _TENSORS_OF)


def _entered(stack: ExitStack, path: Path) -> NativeLibrary:
    handle = stack.enter_context(held_open(path, os.RTLD_NOW | os.RTLD_NOLOAD))
    if not handle:
        raise OSError(f"{path.name} is not open")
    library = NativeLibrary(handle, path)
    stack.callback(library.close)
    return library


def _owned(handles: "ctypes.Array[ctypes.c_void_p]") -> list[Tensor]:
    """The tensors of those that are there, which take them over."""
    found: list[Tensor] = getattr(_AOTI, _TENSORS_OF)([_capsule(one, None, None) for one in handles if one])
    return found
