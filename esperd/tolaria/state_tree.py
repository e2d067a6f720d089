"""A run's state at one moment: copied out of the live tensors in one go, kept in memory, written to files, rebuilt.

`capture` and `rebuild` run on the training thread, `write_files` and `read_files` on the checkpoint threads, which see
CPU copies only. Knows neither what the state means nor which checkpoints there are.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.oona.checkpoints.manifest import FileEntry, corrupt, is_valid_file_name, strict_json
from esperd.oona.checkpoints.pending import PendingCheckpoint
from esperd.oona.checkpoints.reading import StoredCheckpoint, check_size, read_verified
from esperd.tolaria import safetensors_header
from esperd.tolaria.safetensors_header import Place
from esperd.tolaria.state_plain import Decoder, Encoder, to_json

_STATE_NAME = "state.json"
_SUFFIX = ".safetensors"
_ALIGNMENT_BYTES = 64
_SPARE_SHARE = 16
"""A block is made larger than asked for by one part in so many, for the seeds to come."""

_Signature = tuple[tuple[str, ...], tuple[torch.dtype, ...], tuple[torch.Size, ...]]


@dataclass(frozen=True, slots=True)
class _Section:
    """The tensors of one top-level key: one range of a block, one file."""

    name: str
    head: bytes
    start: int
    num_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Where each tensor of one structure lies in a block; the order of names is that of the capture."""

    signature: _Signature
    places: tuple[Place, ...]
    sections: tuple[_Section, ...]
    num_bytes: int


@dataclass(slots=True)
class _Block:
    """Memory for one state, with a view for each tensor."""

    storage: torch.Tensor
    layout: _Layout | None = None
    views: list[torch.Tensor] = field(default_factory=list)

    def arrange(self, layout: _Layout) -> None:
        """Cut the memory anew, unless it is cut that way."""
        if self.layout is not layout:
            self.layout = layout
            self.views = [_view(self.storage, place, 0) for place in layout.places]


class Captured:
    """A state in memory: `plain` is ready for JSON, `tensors` are contiguous CPU copies by path.

    Whoever keeps it beside its maker calls `retain`, and everyone calls `release` once; after the last `release` its
    memory serves another capture. `retain` and `release` may be called on any thread.
    """

    __slots__ = ("_block", "_holders", "_pool", "num_bytes", "parts", "plain", "source", "tensors")

    def __init__(
        self,
        plain: dict[str, Any],
        tensors: dict[str, torch.Tensor],
        source: str,
        parts: Sequence[tuple[_Section, memoryview]] = (),
        pool: "BufferPool | None" = None,
        block: _Block | None = None,
    ) -> None:
        self.plain = plain
        self.tensors = tensors
        self.source = source
        """Id of the checkpoint that it was read from, `memory` for a capture."""
        self.parts = parts
        """Head and bytes of each file of tensors; empty when it was read from files."""
        self.num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        self._pool = pool
        self._block = block
        self._holders = [0]

    def check_held(self) -> None:
        """Raise RuntimeError when everybody has let go of it, so that its memory may hold something else."""
        if not self._holders:
            raise RuntimeError("a captured state is used after its release")

    def retain(self) -> None:
        """Hold it once more; only for somebody who holds it."""
        self.check_held()
        self._holders.append(1)  # a list's append and pop are atomic, an integer's += is not

    def release(self) -> None:
        """Let go of it. Raises RuntimeError when it was let go of more often than held."""
        try:
            is_last = self._holders.pop() == 0
        except IndexError:
            raise RuntimeError("a captured state was released too often") from None
        if not is_last:
            return
        block, self._block = self._block, None
        self.plain, self.tensors, self.parts = {}, {}, ()
        if block is not None and self._pool is not None:
            self._pool.give_back(block)


class BufferPool:
    """Memory for captures, kept from one to the next, because fresh memory costs ten times a copy into known memory.

    `device` is where most of the live tensors are: for CUDA the memory is pinned and one event ends all copies.
    Captures are made on one thread; memory may come back on any.
    """

    def __init__(self, device: torch.device, *, max_free: int = 2) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self._max_free = max_free
        self._free: deque[_Block] = deque(maxlen=max_free)
        self._layout: _Layout | None = None

    def reserve(self, num_blocks: int) -> None:
        """Have memory ready for `num_blocks` (at most `max_free`) more states like the last, so that they are quick.

        Raises:
            EsperdError: CHECKPOINT_FAILED, there is not enough memory.
            ValueError: nothing was captured yet.
        """
        if self._layout is None:
            raise ValueError("nothing was captured yet")
        while len(self._free) < min(num_blocks, self._max_free):
            block = self._new_block(self._layout.num_bytes)
            block.storage.zero_()  # the system gives memory when it is first written to
            block.arrange(self._layout)
            self._free.append(block)

    def take(self, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> _Block:
        """A block cut for these tensors. Raises EsperdError CHECKPOINT_FAILED."""
        signature = (tuple(names), tuple([t.dtype for t in tensors]), tuple([t.shape for t in tensors]))
        if self._layout is None or self._layout.signature != signature:
            self._layout = _lay_out(signature)
        layout = self._layout
        while self._free:
            block = self._free.pop()
            if block.storage.numel() >= layout.num_bytes:
                break
        else:
            block = self._new_block(layout.num_bytes)
        block.arrange(layout)
        return block

    def fill(self, block: _Block, tensors: list[torch.Tensor]) -> None:
        """Copy the live tensors; when it returns, they may change again. Raises EsperdError CHECKPOINT_FAILED."""
        if not tensors:
            return
        try:
            with torch.no_grad():
                torch._foreach_copy_(block.views, tensors, non_blocking=self._is_cuda)
            if self._is_cuda:
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
                done.record(torch.cuda.current_stream(self._device))
                done.synchronize()
        except RuntimeError as error:  # torch has no other; what is wrong with the device shows in the next step
            self.give_back(block)
            raise EsperdError("CHECKPOINT_FAILED", detail=f"the state could not be copied ({error})") from error

    def give_back(self, block: _Block) -> None:
        """Take a block back; beyond `max_free` the oldest goes."""
        self._free.append(block)

    def _new_block(self, num_bytes: int) -> _Block:
        size = num_bytes + num_bytes // _SPARE_SHARE
        try:
            return _Block(torch.empty(size, dtype=torch.uint8, pin_memory=self._is_cuda))
        except RuntimeError as error:  # torch has no other for memory that is not there
            raise EsperdError("CHECKPOINT_FAILED", detail=f"no memory for {size} bytes ({error})") from error


def capture(tree: Mapping[str, Any], pool: BufferPool) -> Captured:
    """Copy a state: dicts, lists, tuples, sets, deques, counters, numbers, strings, bytes, tensors, arrays.

    The top-level keys are its sections (letters, digits, underscores), with one file of tensors each. The live tensors
    are only read.

    Raises:
        EsperdError: CHECKPOINT_UNSAVABLE with the path of what cannot be saved, CHECKPOINT_FAILED without memory or
            when the device fails.
    """
    encoder = Encoder()
    plain = {}
    for section, value in tree.items():
        if not section.replace("_", "").isalnum() or not is_valid_file_name(section + _SUFFIX):
            raise EsperdError("CHECKPOINT_UNSAVABLE", path=section, detail="that is no name of a section")
        plain[section] = encoder.encode(section, value)
    block = pool.take(encoder.names, encoder.tensors)
    pool.fill(block, encoder.tensors)
    layout = block.layout
    assert layout is not None  # take has arranged it
    data = _bytes_of(block.storage)
    parts = [(section, data[section.start : section.start + section.num_bytes]) for section in layout.sections]
    return Captured(plain, dict(zip(encoder.names, block.views, strict=True)), "memory", parts, pool, block)


def rebuild(captured: Captured) -> dict[str, Any]:
    """The tree again. Its tensors ARE those of `captured`: whoever loads them copies, before `captured` is released.

    Arrays and containers are new. A tensor in another memory format than contiguous comes back in that format.

    Raises:
        EsperdError: CHECKPOINT_CORRUPT, the plain part and the tensors do not fit each other.
    """
    captured.check_held()
    decoder = Decoder(captured.tensors)
    try:
        tree = {section: decoder.decode(value) for section, value in captured.plain.items()}
    except Exception as error:  # a forged state may raise anything, and whatever it raises is damage
        raise corrupt(captured.source, f"its state cannot be rebuilt ({type(error).__name__}: {error})") from error
    if decoder.used != captured.tensors.keys():
        raise corrupt(captured.source, "it has tensors that belong nowhere")
    return tree


def write_files(captured: Captured, pending: PendingCheckpoint) -> None:
    """Write a capture: one safetensors file for each section that has tensors, then state.json.

    Raises:
        EsperdError: CHECKPOINT_FAILED when the disk refuses.
    """
    captured.check_held()
    if captured.tensors and not captured.parts:
        raise ValueError("what was read from files is not written again")
    for section, data in captured.parts:
        with pending.file(section.name + _SUFFIX) as file:
            file.write(section.head)
            middle = len(data) // 2
            file.write(data[:middle])
            failpoint(f"checkpoint.writing.{section.name}")
            file.write(data[middle:])
    with pending.file(_STATE_NAME) as file:
        for number, piece in enumerate(to_json(captured.plain)):
            if number == 1:
                failpoint("checkpoint.writing.state")
            file.write(piece)


def read_files(stored: StoredCheckpoint) -> Captured:
    """Read a checkpoint into memory of its own; every byte is hashed before it is looked at.

    Raises:
        EsperdError: CHECKPOINT_CORRUPT.
    """
    checkpoint_id = stored.manifest.checkpoint_id
    plain: Any = None
    tensors: dict[str, torch.Tensor] = {}
    for entry in stored.manifest.files:
        data = _read(stored, entry)
        try:
            if entry.name == _STATE_NAME:
                plain = strict_json(_bytes_of(data).tobytes())
            else:
                tensors.update(_read_tensors(entry.name, data))
        except ValueError as error:
            raise corrupt(checkpoint_id, f"{entry.name}: {error}") from error
    if type(plain) is not dict:
        raise corrupt(checkpoint_id, f"{_STATE_NAME} is missing or no object")
    return Captured(plain, tensors, checkpoint_id)


def _read(stored: StoredCheckpoint, entry: FileEntry) -> torch.Tensor:
    check_size(stored, entry)
    data = torch.empty(entry.num_bytes, dtype=torch.uint8)
    read_verified(stored, entry, _bytes_of(data))
    return data


def _read_tensors(file_name: str, data: torch.Tensor) -> dict[str, torch.Tensor]:
    section = file_name.removesuffix(_SUFFIX)
    begin, places = safetensors_header.parse(_bytes_of(data))
    if section == file_name or any(place.name.split("/")[0] != section for place in places):
        raise ValueError("it holds what belongs elsewhere")
    return {place.name: _view(data, place, begin) for place in places}


def _lay_out(signature: _Signature) -> _Layout:
    names, dtypes, shapes = signature
    by_section: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        by_section.setdefault(name.split("/")[0], []).append(index)
    places: list[Place | None] = [None] * len(names)
    sections = []
    start = 0
    for section, indices in by_section.items():
        # Wide types first, so that each tensor lies on a multiple of its own width although nothing may lie between.
        indices.sort(key=lambda index: -dtypes[index].itemsize)
        in_file = []
        end = 0
        for index in indices:
            place = Place(names[index], dtypes[index], tuple(shapes[index]), end)
            in_file.append(place)
            places[index] = Place(place.name, place.dtype, place.shape, start + end)
            end = place.end
        sections.append(_Section(section, safetensors_header.build(in_file), start, end))
        start += end + -end % _ALIGNMENT_BYTES
    return _Layout(signature, tuple(p for p in places if p is not None), tuple(sections), start)


def _view(storage: torch.Tensor, place: Place, begin: int) -> torch.Tensor:
    return storage[begin + place.start : begin + place.end].view(place.dtype).view(place.shape)


def _bytes_of(data: torch.Tensor) -> memoryview:
    return data.numpy().data
