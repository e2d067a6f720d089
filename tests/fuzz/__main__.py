"""Fuzzes one target for a time: `python -m tests.fuzz envelope --seconds 600`.

A finding ends the run with a traceback and its input in a file below `--findings`; `--input FILE` runs that file alone.
"""

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

MODULES = {
    "envelope": "envelopes",
    "payloads": "calls",
    "filters": "calls",
    "tokens": "calls",
    "keyring": "files",
    "config": "files",
}
WARM_UP_INPUTS = 2000
MAX_GROWTH_BYTES = 48 << 20
"""After the warm-up; the fuzzer's own corpus and coverage take a few MiB of it."""
MAX_WORD_BYTES = 64
"""The fuzzer takes none longer into its dictionary."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def load(name: str) -> Any:
    """A target, the code that it reads with under coverage: so nothing of it may be imported before."""
    with atheris.instrument_imports(include=["esperd", "tomllib"]):
        module = importlib.import_module(f"tests.fuzz.{MODULES[name]}")
    return module.TARGETS[name]


class MemoryGuard:
    """Runs a target and ends the process when its memory keeps growing."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._num_inputs = 0
        self._first_bytes = 0

    def __call__(self, data: bytes) -> None:
        """One input."""
        self._target.one_input(data)
        self._num_inputs += 1
        if self._num_inputs == WARM_UP_INPUTS:
            self._first_bytes = resident_bytes()
        elif self._num_inputs % WARM_UP_INPUTS == 0:
            growth = resident_bytes() - self._first_bytes
            assert growth < MAX_GROWTH_BYTES, f"memory grew by {growth >> 20} MiB in {self._num_inputs} inputs"


def resident_bytes() -> int:
    """Memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def main() -> None:
    """Fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(MODULES))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0 takes a new one; it is printed")
    parser.add_argument("--findings", default=".", help="where the input of a finding is written")
    parser.add_argument("--corpus", default="", help="a folder that keeps what was learnt for the next run")
    parser.add_argument("--input", default="", help="run this file alone")
    options = parser.parse_args()
    target = load(options.target)
    with tempfile.TemporaryDirectory() as folder:
        seeds, words = Path(folder, "seeds"), Path(folder, "words")
        seeds.mkdir()
        for number, seed in enumerate(target.seeds):
            (seeds / f"{number:04d}").write_bytes(seed)
        usual = [word for word in target.words if 0 < len(word.encode()) <= MAX_WORD_BYTES]
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in (*usual, "\0")))
        flags = [
            f"-max_total_time={options.seconds}",
            f"-max_len={target.max_bytes}",
            f"-dict={words}",
            f"-artifact_prefix={Path(options.findings, options.target)}-",
            "-timeout=10",
            "-print_final_stats=1",
        ]
        flags += [f"-seed={options.seed}"] if options.seed else []
        places = [options.input] if options.input else [*filter(None, [options.corpus]), str(seeds)]
        atheris.Setup([sys.argv[0], *flags, *places], MemoryGuard(target))
        atheris.Fuzz()


def _quoted(word: str) -> str:
    return "".join(
        character if character.isalnum() else "".join(f"\\x{byte:02x}" for byte in character.encode())
        for character in word
    )


if __name__ == "__main__":
    main()
