"""The async client's methods for CommandService: commands, their outcomes, and watching them.

One event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from esper.client import kernel_plans, plans, watches
from esper.client.aio_methods.caller import AsyncCaller
from esper.client.calls import COMMAND_STREAM
from esper.client.command_stream import CommandStream
from esper.client.errors import Unreachable
from esper.client.watches import RECONNECT_S
from esper.leyline.v1 import command_service_pb2 as command_pb
from esper.leyline.v1.command_pb2 import AdaptationCommand, Command
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_UNSPECIFIED,
    ROLLBACK_TIER_UNSPECIFIED,
    CommandState,
    RollbackTier,
)


class AsyncCommands(AsyncCaller):
    """Commands, their outcomes, and watching them."""

    async def command(self, command_id: str, *, wait_s: float = 0.0) -> Command:
        """One command; waits at most `wait_s` (and at most 20 s) for its outcome."""
        return (await self._carry_out(plans.command(command_id, wait_s))).command

    async def commands(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        state: CommandState = COMMAND_STATE_UNSPECIFIED,
        seed_id: str = "",
    ) -> command_pb.ListCommandsResponse:
        """A page of commands, newest first; those in one state or of one seed if asked."""
        return await self._carry_out(plans.commands(page_size, page_token, state, seed_id))

    async def submit(
        self, command: AdaptationCommand, *, wait: bool = False, timeout_s: float | None = None
    ) -> Command:
        """Submit a command; an empty request_id is filled in.

        Returns it as accepted, or with `wait` as soon as it has its outcome. An outcome that has not come within
        `timeout_s` (60 s unless stated) leaves it ACCEPTED; a refused command is returned with its error, not raised.
        """
        patience = self._patience(timeout_s)
        plan = plans.submit(command, self._signer.new_id)
        accepted = (await self._carry_out(plan, timeout_s)).command
        return await self.outcome(accepted, timeout_s=patience.remaining_s()) if wait else accepted

    async def outcome(self, command: Command, *, timeout_s: float | None = None) -> Command:
        """Wait for the outcome of an accepted command, at most `timeout_s` (60 s unless stated).

        A restart of the daemon is ridden out: every accepted command gets its outcome across it.
        """
        patience = self._patience(timeout_s)
        while not plans.is_final(command) and (left_s := patience.remaining_s()) > 0:
            try:
                command = await self.command(command.command_id, wait_s=left_s)
            except Unreachable as error:
                await asyncio.sleep(patience.after(error))
        return command

    async def checkpoint(
        self,
        *,
        note: str = "",
        reason: str = "",
        wait: bool = True,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Command:
        """Write a checkpoint of the next safe point; returns once it is on disk, unless `wait` is False."""
        command = plans.write_checkpoint(note, reason, request_id)
        return await self.submit(command, wait=wait, timeout_s=timeout_s)

    async def rollback(
        self,
        *,
        checkpoint_id: str = "",
        global_step: int | None = None,
        before_seed_id: str = "",
        tier: RollbackTier = ROLLBACK_TIER_UNSPECIFIED,
        reason: str = "",
        wait: bool = True,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Command:
        """Go back to a checkpoint, to the newest good state at or before a step, or to that before a seed.

        Exactly one of the three is given, else ValueError. Returns the command with its outcome unless `wait` is
        False; the run then goes on on a new timeline, and what came after the state is left behind.
        """
        command = plans.roll_back(checkpoint_id, global_step, before_seed_id, tier, reason, request_id)
        return await self.submit(command, wait=wait, timeout_s=timeout_s)

    async def swap_kernel(
        self,
        seed_id: str,
        artifact_id: str = "",
        *,
        reason: str = "",
        wait: bool = True,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Command:
        """Have a seed compute by a kernel; by its eager module, for good, without one. Returns it as `submit` does."""
        command = kernel_plans.swap_kernel(seed_id, artifact_id, reason, request_id)
        return await self.submit(command, wait=wait, timeout_s=timeout_s)

    async def submit_batch(self, commands: Iterable[AdaptationCommand]) -> command_pb.SubmitCommandsResponse:
        """Submit at most 256 commands: all are accepted, or none; empty request_ids are filled in."""
        return await self._carry_out(plans.submit_batch(commands, self._signer.new_id))

    async def cancel(self, command_id: str, reason: str) -> Command:
        """Take back a command that has not taken effect."""
        return (await self._carry_out(plans.cancel(command_id, reason))).command

    def watch_commands(
        self,
        *,
        latest: bool = False,
        resume_token: bytes = b"",
        restart: bool = True,
        bookmark_interval_s: int = 0,
        reconnect_s: float = RECONNECT_S,
    ) -> AsyncIterator[command_pb.WatchCommandsResponse]:
        """Commands as they are accepted and settled, with bookmarks; only the newest state of each with `latest`.

        The first message is a bookmark. See `watch_state` for `reconnect_s`; with `restart`, a token that is too old
        starts anew, with such a bookmark, and OUT_OF_RANGE without it.
        """
        watch = watches.commands(latest=latest, restart=restart, bookmark_interval_s=bookmark_interval_s)
        return self._watch(watch, resume_token, reconnect_s)

    def command_stream(self, *, max_in_flight: int = 8) -> CommandStream:
        """A stream for high rates: signed batches up, receipts down, several batches under way at once."""
        return CommandStream(
            self._signed_stream(COMMAND_STREAM), new_id=self._signer.new_id, max_in_flight=max_in_flight
        )
