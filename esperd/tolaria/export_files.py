"""The files of an exported model, one kind for each format, and reading them back as a stranger would.

Any thread of the export's process. Knows no run and no seed: a captured graph in, files with their digests out.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.manifest import FileEntry
from esperd.tolaria.exported_graph import ExportedGraph, weights
from esperd.tolaria.model_source import model_source, shared_names

_CHUNK_BYTES = 4 << 20
PROGRAM, WEIGHTS, SOURCE = "model.pt2", "model.safetensors", "model.py"


@dataclass(frozen=True, slots=True)
class Words:
    """What the files say about where they come from."""

    about: str
    """One line for people."""
    version: str
    """Of the daemon."""
    host_prefix: str
    """What the host's weights are under in the graph; their names in the file go without it."""


@dataclass(frozen=True, slots=True)
class Format:
    """How a graph becomes files, and a model again."""

    how_to_load: str
    write: Callable[[ExportedGraph, Path, Words], None]
    load: Callable[[Path], nn.Module]


def describe_file(path: Path) -> FileEntry:
    """Name, size and SHA-256 of a file, which is durable afterwards."""
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
        os.fsync(file.fileno())
    return FileEntry(path.name, num_bytes, digest.hexdigest())


def _write_program(graph: ExportedGraph, directory: Path, words: Words) -> None:
    torch.export.save(graph.program, directory / PROGRAM, extra_files={"about.txt": words.about})


def _load_program(directory: Path) -> nn.Module:
    return torch.export.load(directory / PROGRAM).module()


def _write_source(graph: ExportedGraph, directory: Path, words: Words) -> None:
    names = _file_names(graph, words.host_prefix)
    source = model_source(graph, names, about=words.about, version=words.version)
    shared = shared_names(graph)
    # One copy each: the format knows no tensor that looks into another, and none with gaps.
    tensors = {names[w.name]: _whole(w.tensor) for w in weights(graph.program) if w.name not in shared}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt", "about": words.about})
    (directory / SOURCE).write_text(source, encoding="utf-8")


def _load_source(directory: Path) -> nn.Module:
    path = directory / SOURCE
    namespace: dict[str, Any] = {"__name__": "exported_model"}
    exec(compile(path.read_text(encoding="utf-8"), path.name, "exec"), namespace)  # what was just written here
    model: nn.Module = namespace["load"](directory / WEIGHTS)
    return model


def _file_names(graph: ExportedGraph, host_prefix: str) -> dict[str, str]:
    """Each weight's name in the file: the host's own key, or that of the seed."""
    names = {weight.name: weight.name.removeprefix(host_prefix) for weight in weights(graph.program)}
    if len(set(names.values())) != len(names):
        twice = sorted(name for name in names if host_prefix + name in names)
        raise EsperdError("EXPORT_FAILED", detail=f"the host has weights of its own called {', '.join(twice)}")
    return names


def _whole(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


FORMATS: Mapping[str, Format] = {
    "safetensors": Format('from model import load; model = load("model.safetensors")', _write_source, _load_source),
    "torch-export": Format('model = torch.export.load("model.pt2").module()', _write_program, _load_program),
}
"""Every format by its name on the command line."""
