"""What a native library asks for, read from its bytes before anybody opens it.

Any thread, but slow for large libraries: the validator's own process calls it. Knows the ELF format and what kernels
need, nothing of kernels themselves. Opening a library runs code of it, so this comes first. It finds what a compiler
never makes, not what a determined author hides: trust rests on signatures, and the process is confined besides.
"""

import io
import re
from dataclasses import dataclass
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

EXECUTABLE, WRITABLE = 1, 2
"""Bits of a segment's flags."""
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}

_ANYWHERE = r"libtorch|libtorch_cpu|libc10|libstdc\+\+|libgcc_s|libc|libm|libmvec|libpthread|libgomp\S*|ld-linux[-\w]*"
_ON_CUDA = r"libtorch_cuda|libc10_cuda|libcuda|libcudart"
_LIBC = """
    abort free malloc calloc realloc aligned_alloc posix_memalign memcmp memcpy memmove memset memchr strchr strcmp
    strncmp strlen strtol strtoul strtoll strtoull strtod strtof getenv secure_getenv snprintf vsnprintf sprintf
    fprintf fputc fputs fwrite fflush puts printf putchar stderr stdout qsort bsearch div ldiv rand
    clock_gettime clock gettimeofday time nanosleep sched_yield dl_iterate_phdr sysconf
    pthread_self pthread_equal pthread_once pthread_key_create pthread_getspecific pthread_setspecific
"""
_IMPORTS = re.compile(
    "|".join(
        (
            r"aoti_torch_\w+|Sleef_\w+",  # the C interface of torch, and the vector functions that it carries
            r"(GOMP|omp)_\w+",
            r"__cxa_\w+|__gxx_personality_v0|__dynamic_cast|_Unwind_\w+|_ITM_\w+|__gmon_start__",
            r"__tls_get_addr|__stack_chk_fail|__errno_location|__libc_single_threaded|__isoc23_strto\w+|__assert_fail",
            r"__(mem(cpy|move|set)|v?snprintf|v?sprintf|f?printf)_chk",
            r"pthread_(mutex|rwlock|cond|mutexattr|condattr|rwlockattr)_\w+",
            "|".join(_LIBC.split()),
            r"_ZGV\w+|a?(sin|cos|tan)h?[fl]?|atan2[fl]?|(exp|exp2|expm1|log|log2|log10|log1p|pow|sqrt|cbrt|hypot|erfc?|[lt]gamma)[fl]?",
            r"(l?gamma(_r)?|floor|ceil|round|l?l?round|l?l?rint|nearbyint|trunc|fmod|remainder|f?abs|fma|fmin|fmax|copysign)[fl]?",
            r"(nextafter|ldexp|frexp|modf|scalbn|ilogb|fdim|sincos)[fl]?",
            r"_Z(T[VTIS])?N?[KVrO]*(S[tabsiod]|10__cxxabiv1).*|_Z[nd][awl]\w+|_ZTI[PK]*[a-z]",  # std:: and operator new
        )
    )
)
_STD_TO_REFUSE = re.compile(r"filesystem|fstream|filebuf|St6thread|random_device|St5async|jthread")
_CUDA_IMPORTS = re.compile(r"cu[A-Z]\w+|cuda[A-Z]\w+")


class NotALibraryError(ValueError):
    """The bytes are no shared library; the message says why."""


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """What the loader would do with a library."""

    machine: str
    """As ELF names it, e.g. `EM_X86_64`."""
    needed: tuple[str, ...]
    """Libraries that it would bring in."""
    imports: tuple[str, ...]
    """Names of functions and data that it takes from others, sorted."""
    search_path: str
    """Where it would have others looked for; empty as it should be."""
    has_executable_stack: bool
    has_writable_code: bool


def read_library(data: bytes) -> LibraryFacts:
    """The facts of a library. Raises NotALibraryError."""
    try:
        return _facts(ELFFile(io.BytesIO(data)))
    except NotALibraryError:
        raise
    except ELFError as error:
        raise NotALibraryError(f"it is no ELF file: {error}") from None
    except Exception as error:  # noqa: BLE001 - the reader meets anybody's bytes; whatever it stumbles over, they are no library
        raise NotALibraryError(f"its headers contradict each other: {type(error).__name__}: {error}") from None


def findings(facts: LibraryFacts, *, machine: str, device_type: str) -> tuple[str, ...]:
    """What no kernel for this machine (e.g. `x86_64`) and device (`cpu` or `cuda`) has, one line each."""
    on_cuda = device_type == "cuda"
    allowed = re.compile(rf"({_ANYWHERE}{'|' + _ON_CUDA if on_cuda else ''})\.so(\.[\d.]+)?")
    found = []
    if facts.machine != MACHINES.get(machine):
        found.append(f"it is for {facts.machine}, not {machine}")
    found += [f"it needs the library {name}" for name in facts.needed if not allowed.fullmatch(name)]
    found += [f"it imports {name}" for name in facts.imports if not _may_import(name, on_cuda)]
    if facts.search_path:
        found.append(f"it has libraries looked for in {facts.search_path}")
    if facts.has_executable_stack:
        found.append("it asks for an executable stack")
    if facts.has_writable_code:
        found.append("it has code that it can write to")
    return tuple(found)


def _may_import(name: str, on_cuda: bool) -> bool:
    if on_cuda and _CUDA_IMPORTS.fullmatch(name):
        return True
    return _IMPORTS.fullmatch(name) is not None and _STD_TO_REFUSE.search(name) is None


def _facts(elf: Any) -> LibraryFacts:
    segments = list(elf.iter_segments())
    dynamic = [segment for segment in segments if isinstance(segment, DynamicSegment)]
    if elf["e_type"] != "ET_DYN" or elf.elfclass != 64 or not elf.little_endian:
        raise NotALibraryError("it is no 64-bit shared library")
    if len(dynamic) != 1:
        raise NotALibraryError(f"it has {len(dynamic)} dynamic segments, not 1")
    if any(segment["p_type"] == "PT_INTERP" for segment in segments):
        raise NotALibraryError("it is a program")
    tags: list[Any] = list(dynamic[0].iter_tags())
    stacks = [segment["p_flags"] for segment in segments if segment["p_type"] == "PT_GNU_STACK"]
    loaded = [segment["p_flags"] for segment in segments if segment["p_type"] == "PT_LOAD"]
    return LibraryFacts(
        machine=str(elf["e_machine"]),
        needed=tuple(str(tag.needed) for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
        imports=tuple(sorted(_imports(dynamic[0]))),
        search_path=":".join(
            getattr(tag, "rpath", "") or getattr(tag, "runpath", "")
            for tag in tags
            if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")
        ),
        # Without the header the loader takes the stack to be executable.
        has_executable_stack=not stacks or any(flags & EXECUTABLE for flags in stacks),
        has_writable_code=any(flags & EXECUTABLE and flags & WRITABLE for flags in loaded)
        or any(tag.entry.d_tag == "DT_TEXTREL" for tag in tags),
    )


def _imports(dynamic: Any) -> set[str]:
    """Names bound elsewhere: of the symbol table, and of every symbol that a relocation names beyond its end."""
    symbols = list(dynamic.iter_symbols())
    for table in dynamic.get_relocation_tables().values():
        for relocation in table.iter_relocations():
            if "r_info_sym" in relocation.entry and relocation["r_info_sym"] >= len(symbols):
                symbols.append(dynamic.get_symbol(relocation["r_info_sym"]))
    return {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name}
