"""Takes back a library's wish for an executable stack, which the compiler makes by oversight.

The compiler's process only. The object that holds a library's constants says nothing about the stack, which the linker
takes for a wish: opening the library would then make every stack of the process executable, and newer C libraries
refuse to. Nothing in such a library runs code from its stack.
"""

import struct

PT_GNU_STACK, EXECUTABLE = 0x6474E551, 1
_HEADERS_AT, _HEADER_SIZE_AT = 32, 54
"""Where an ELF file of 64 bits says where its program headers are, and how large and many."""


def without_executable_stack(library: bytes) -> bytes:
    """The same library, with a stack that is data."""
    patched = bytearray(library)
    (begin,) = struct.unpack_from("<Q", patched, _HEADERS_AT)
    size, count = struct.unpack_from("<HH", patched, _HEADER_SIZE_AT)
    for at in range(begin, begin + count * size, size):
        kind, flags = struct.unpack_from("<II", patched, at)
        if kind == PT_GNU_STACK:
            struct.pack_into("<I", patched, at + 4, flags & ~EXECUTABLE)
    return bytes(patched)
