"""What is fuzzed, as data: a name, what to do with an input, and inputs to begin with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from esperd.leyline.errors import EsperdError

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Target:
    """One thing that reads bytes."""

    one_input: Callable[[bytes], None]
    """Reads one input; whatever it raises is a finding."""
    seeds: Sequence[bytes]
    words: Sequence[str] = ()
    """What inputs are often made of."""
    max_bytes: int = 4096


def outcome(read: Callable[[], ValueT]) -> tuple[ValueT, None] | tuple[None, EsperdError]:
    """What a reader makes of an input: a value, or an error of the catalogue; anything else it raises is a finding."""
    try:
        return read(), None
    except EsperdError as error:
        return None, error
