"""Readers of a round: they follow the state or the commands, are cut, leave, and come back with the token they had.

One event loop. A reader of the state puts it together from the snapshot and the changes, and notes the digests of its
parts at every revision: two readers that are at one revision must hold the same state.
"""

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

from esper.client.errors import LeylineError, Unreachable
from esper.leyline.v1.command_service_pb2 import WatchCommandsResponse
from esper.leyline.v1.state_service_pb2 import StateDelta, StateSnapshot, WatchStateResponse

from tests.robustness.rounds.events import Ended, Message, Opened
from tests.robustness.rounds.recording import RecordingClient, check

_PAUSE_S = 0.05


class Reader:
    """One reader, over as many streams as it takes."""

    def __init__(self, client: RecordingClient, name: str, *, every: bool) -> None:
        self._client = client
        self._name = name
        self._every = every
        self._numbers = itertools.count(1)
        self._source = client.source
        self._token = b""

    async def read_state(self, deadline_s: float) -> None:
        """Follow the state."""
        held: StateSnapshot | None = None

        def note(stream: str, response: WatchStateResponse) -> None:
            nonlocal held
            held = _next_state(held, response)
            self._client.notes.write(_state_message(stream, response, held))

        def open_stream() -> AsyncIterator[Any]:
            nonlocal held
            if not self._token:
                held = None
            return self._client.watch_state(
                latest=not self._every,
                resume_token=self._token,
                resnapshot=self._source.random() < 0.5,
                bookmark_interval_s=1,
                reconnect_s=0,
            )

        await self._read("state", open_stream, note, deadline_s)

    async def read_commands(self, deadline_s: float) -> None:
        """Follow the commands."""

        def open_stream() -> AsyncIterator[Any]:
            return self._client.watch_commands(
                resume_token=self._token,
                restart=self._source.random() < 0.5,
                bookmark_interval_s=1,
                reconnect_s=0,
            )

        await self._read(
            "commands",
            open_stream,
            lambda stream, response: self._client.notes.write(_commands_message(stream, response)),
            deadline_s,
        )

    async def _read(
        self,
        feed: str,
        open_stream: Callable[[], AsyncIterator[Any]],
        note: Callable[[str, Any], None],
        deadline_s: float,
    ) -> None:
        while (now_s := time.monotonic()) < deadline_s:
            if self._source.random() < 0.1:
                self._token = b""
            stream = f"{self._name}.{next(self._numbers)}"
            self._client.notes.write(Opened(stream, feed, self._every, self._token.hex()))
            leave_s = min(deadline_s, now_s + self._source.uniform(0.5, 6.0))
            reason = await self._follow(stream, open_stream(), note, leave_s)
            self._client.notes.write(Ended(stream, reason))
            if reason == "REVISION_COMPACTED":
                self._token = b""
            await asyncio.sleep(_PAUSE_S)

    async def _follow(
        self, stream: str, responses: AsyncIterator[Any], note: Callable[[str, Any], None], leave_s: float
    ) -> str:
        """Read until the time is over or the stream ends; why it ended."""
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + leave_s - time.monotonic()):
                async with aclosing(responses) as open_stream:  # type: ignore[type-var]  # they are generators
                    async for response in open_stream:
                        note(stream, response)
                        self._token = response.resume_token
                        if self._source.random() < 0.01:
                            await asyncio.sleep(self._source.uniform(0.0, 0.5))
        except TimeoutError:
            return "left"
        except LeylineError as error:
            check(error)
            return "cut" if isinstance(error, Unreachable) else error.reason
        return "ended by the daemon"


def _next_state(held: StateSnapshot | None, response: WatchStateResponse) -> StateSnapshot | None:
    """The state after a message; None while nothing is known."""
    content = response.WhichOneof("content")
    if content == "snapshot":
        return response.snapshot
    if content == "delta" and held is not None:
        _apply(held, response.delta)
    return held


def _apply(held: StateSnapshot, delta: StateDelta) -> None:
    if delta.HasField("run"):
        held.run.CopyFrom(delta.run)
    gone = set(delta.removed_seed_ids)
    for field, key, changed in (
        (held.seeds, "seed_id", delta.seeds),
        (held.sites, "site", delta.sites),
        (held.breakers, "name", delta.breakers),
    ):
        rows = {getattr(row, key): row for row in (*field, *changed)}
        kept = [row for name, row in rows.items() if key != "seed_id" or name not in gone]
        _replace(field, kept)
    for name in ("optimizers", "emergencies", "restore_points", "timelines"):
        if getattr(delta, f"{name}_changed"):
            _replace(getattr(held, name), list(getattr(delta, name)))


def _replace(field: Any, rows: list[Any]) -> None:
    copies = [type(row).FromString(row.SerializeToString()) for row in rows]
    del field[:]
    field.extend(copies)


_ORDERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"seeds": lambda row: int(row.seed_id), "sites": lambda row: row.site, "breakers": lambda row: row.name}
)
"""In which order the rows are compared of parts that changes leave in another one."""


def _digests(held: StateSnapshot | None) -> tuple[str, ...]:
    """`part:digest` of each part of the state, so that a report says which one differs."""
    if held is None:
        return ()
    found = []
    for field in StateSnapshot.DESCRIPTOR.fields:
        part = getattr(held, field.name)
        rows = [part] if field.name == "run" else sorted(part, key=_ORDERS.get(field.name, lambda _: 0))
        digest = hashlib.sha256(b"".join(row.SerializeToString(deterministic=True) for row in rows))
        found.append(f"{field.name}:{digest.hexdigest()[:12]}")
    return tuple(found)


def _state_message(stream: str, response: WatchStateResponse, held: StateSnapshot | None) -> Message:
    kinds = {"snapshot": "snapshot", "delta": "change", None: "draining" if response.draining else "bookmark"}
    run = held.run if held is not None else StateSnapshot().run
    token = response.resume_token.hex()
    kind = kinds[response.WhichOneof("content")]
    return Message(stream, kind, token, _digests(held), run.global_step, run.timeline)


def _commands_message(stream: str, response: WatchCommandsResponse) -> Message:
    kind = "change" if response.commands else "draining" if response.draining else "bookmark"
    content = tuple(f"{command.command_id}:{command.state}" for command in response.commands)
    return Message(stream, kind, response.resume_token.hex(), content)
