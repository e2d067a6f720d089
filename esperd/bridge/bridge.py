"""The bridge between the training thread and the event loop: five lines, each with its promise.

| line | direction | promise |
| --- | --- | --- |
| CommandBox | loop to trainer | bounded; full or closed is an error at once; every command in it gets one outcome |
| KernelOrders | loop to trainer | kernels to open and to close; training is not woken for them |
| TelemetryRing | trainer to loop | never waits; drops the oldest and counts |
| EventLog | trainer to loop | never drops; in order |
| StateView | trainer to loop | the newest snapshot, by reference; revisions only grow |

At shutdown: once the trainer has left, the box refuses with TRAINER_NOT_RUNNING, what was in it has been answered,
and everything in the event log can still be taken. When the daemon leaves a run that its next start picks up, the box
refuses with DRAINING and what was in it stays as it is: durable in the journal, and carried out by the next start.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from esperd.bridge.command_box import CommandBox
from esperd.bridge.kernel_orders import KernelOrders
from esperd.bridge.telemetry_ring import TelemetryRing
from esperd.bridge.wakeup import Wakeup
from esperd.leyline.commands import Command, Outcome
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelClosed, KernelLoaded, KernelOrder
from esperd.leyline.metrics import Sample
from esperd.leyline.views import (
    CheckpointEvent,
    NoticeEvent,
    RunResumed,
    Snapshot,
    StatePacket,
    TimelineEvent,
    TransitionEvent,
)
from esperd.leyline.vocabulary import CommandState

Event = (
    Outcome
    | TransitionEvent
    | NoticeEvent
    | CheckpointEvent
    | TimelineEvent
    | RunResumed
    | StatePacket
    | Snapshot
    | KernelLoaded
    | KernelClosed
)
"""What travels in the event log. A Snapshot is there once for each revision."""


class TrainerPort(Protocol):
    """All that the event loop's side may do with the trainer; `control` knows nothing else of it."""

    def reserve(self, num_places: int = 1) -> None:
        """Keep places in the command box; EsperdError when it is full or the trainer is gone."""
        ...

    def give_back(self, num_places: int = 1) -> None:
        """Free reserved places."""
        ...

    def submit(self, command: Command) -> None:
        """Hand over a command for which a place is reserved."""
        ...

    def submit_urgent(self, command: Command) -> None:
        """Hand over a command on the emergency lane."""
        ...

    def cancel(self, command_id: str) -> None:
        """Ask the trainer to drop a command that has not taken effect; the outcome tells whether it could."""
        ...

    def load_kernel(self, order: KernelOrder) -> None:
        """Have a kernel opened and warmed up beside training; a KernelLoaded event tells how it went."""
        ...

    def close_kernel(self, artifact_id: str) -> None:
        """Have a kernel closed that no seed uses; a KernelClosed event tells that it is, none comes if it is used."""
        ...

    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        ...

    def take_events(self, max_events: int) -> list[Event]:
        """Up to `max_events` of the oldest events not yet taken."""
        ...

    def take_samples(self, max_samples: int = 1 << 30) -> tuple[list[Sample], int]:
        """The oldest telemetry samples, and the number dropped since the last take."""
        ...

    def note_durable(self, journal_revision: int, checkpoint_ids: Iterable[str] = ()) -> None:
        """Tell the trainer how far the journal has come, and which checkpoints it knows now."""
        ...

    def attach(self, loop: asyncio.AbstractEventLoop, on_events: Callable[[], None]) -> None:
        """Have `on_events` called on the loop whenever events wait."""
        ...

    def detach(self) -> None:
        """Stop the wake-ups: the loop is about to close."""
        ...

    @property
    def training_seconds(self) -> tuple[float, int]:
        """(wall seconds spent in training steps, number of steps) so far, for admission control."""
        ...


class Bridge:
    """Both ends of the bridge; `port` for the loop is this object seen as a TrainerPort."""

    def __init__(self, *, first_snapshot: Snapshot, box_capacity: int = 1024, ring_capacity: int = 65536) -> None:
        self.box = CommandBox(box_capacity)
        self.ring = TelemetryRing(ring_capacity)
        self.kernel_orders = KernelOrders(self.box.wake)
        self._events: deque[Event] = deque()
        self._snapshot = first_snapshot
        self._wakeup = Wakeup()
        self._cancellations: deque[str] = deque()
        self._stop_requested = False
        self.journal_revision = 0
        """Journal revision of the newest row that is known to be durable; written by the loop's side."""
        self.known_checkpoints: set[str] | None = None
        """Checkpoints that the journal knows: a later start goes on from these only. None where there is no journal."""
        self.heartbeat_monotonic_s = time.monotonic()
        """When the trainer last showed life; read by the watchdog."""
        self._training_s = 0.0
        self._num_steps = 0

    # Event loop side (TrainerPort)

    def reserve(self, num_places: int = 1) -> None:
        """See TrainerPort."""
        self.box.reserve(num_places)

    def give_back(self, num_places: int = 1) -> None:
        """See TrainerPort."""
        self.box.give_back(num_places)

    def submit(self, command: Command) -> None:
        """See TrainerPort."""
        self.box.put(command)

    def submit_urgent(self, command: Command) -> None:
        """See TrainerPort."""
        self.box.put_urgent(command)

    def cancel(self, command_id: str) -> None:
        """See TrainerPort."""
        self._cancellations.append(command_id)
        self.box.wake()

    def load_kernel(self, order: KernelOrder) -> None:
        """See TrainerPort."""
        self.kernel_orders.open(order)

    def close_kernel(self, artifact_id: str) -> None:
        """See TrainerPort."""
        self.kernel_orders.close(artifact_id)

    def snapshot(self) -> Snapshot:
        """See TrainerPort."""
        return self._snapshot

    def take_events(self, max_events: int) -> list[Event]:
        """See TrainerPort; rings again when more is left, so that one pass stays short."""
        events = self._events
        taken = [events.popleft() for _ in itertools.repeat(None, min(max_events, len(events)))]
        if events:
            self._wakeup.ring()
        return taken

    def take_samples(self, max_samples: int = 1 << 30) -> tuple[list[Sample], int]:
        """See TrainerPort."""
        return self.ring.take(max_samples)

    def note_durable(self, journal_revision: int, checkpoint_ids: Iterable[str] = ()) -> None:
        """See TrainerPort."""
        if self.known_checkpoints is not None:
            self.known_checkpoints.update(checkpoint_ids)
        self.journal_revision = max(self.journal_revision, journal_revision)

    def attach(self, loop: asyncio.AbstractEventLoop, on_events: Callable[[], None]) -> None:
        """See TrainerPort."""
        self._wakeup.attach(loop, on_events)

    def detach(self) -> None:
        """See TrainerPort."""
        self._wakeup.detach()

    @property
    def training_seconds(self) -> tuple[float, int]:
        """See TrainerPort."""
        return self._training_s, self._num_steps

    def request_stop(self) -> None:
        """Ask the training thread to leave at its next safe point; for the supervisor at shutdown."""
        self._stop_requested = True
        self.box.wake()

    def depths(self) -> dict[str, int]:
        """What waits in the bridge, for whoever looks for a jam."""
        return {
            "commands for the trainer": self.box.num_waiting,
            "events for the loop": len(self._events),
            "samples for the loop": self.ring.num_waiting,
        }

    # Training side

    @property
    def stop_requested(self) -> bool:
        """Whether the supervisor wants the training thread to leave."""
        return self._stop_requested

    def emit(self, sample: Sample) -> None:
        """Send one telemetry sample; may be dropped, never waits."""
        self.ring.emit(sample)

    def record(self, event: Event) -> None:
        """Send one event; never dropped, in order."""
        self._events.append(event)
        self._wakeup.ring()

    def publish(self, snapshot: Snapshot) -> None:
        """Swap in a new snapshot; a new revision is also recorded as an event.

        Raises ValueError when the revision goes back.
        """
        before = self._snapshot.revision
        if snapshot.revision < before:
            raise ValueError(f"revision went back from {before} to {snapshot.revision}")
        self._snapshot = snapshot
        if snapshot.revision > before:
            self.record(snapshot)

    @property
    def has_mail(self) -> bool:
        """Whether a safe point has anything to do: a command, a cancellation, a kernel to close, the wish to stop."""
        return self.box.has_mail or bool(self._cancellations) or self._stop_requested or self.kernel_orders.has_mail

    def take_cancellations(self) -> set[str]:
        """The commands that clients want back, since the last call.

        Called before the box is emptied, so that a command submitted before its cancellation is always seen with it; an
        id that is in neither the box nor the trainer's hands has had its outcome.
        """
        cancellations = self._cancellations
        return {cancellations.popleft() for _ in itertools.repeat(None, len(cancellations))}

    def settle(self, outcome: Outcome) -> None:
        """Send the one final outcome of a command."""
        self.record(outcome)

    def beat(self, step_s: float) -> None:
        """Note that a step of `step_s` seconds is done."""
        self.heartbeat_monotonic_s = time.monotonic()
        self._training_s += step_s
        self._num_steps += 1

    def show_life(self) -> None:
        """Tell the watchdog that the trainer is there while it takes no steps (paused, validating)."""
        self.heartbeat_monotonic_s = time.monotonic()

    def close(self, phase: str, deferred: Sequence[Command] = (), *, keep_unsettled: bool = False) -> None:
        """The trainer leaves: refuse what comes, answer what waits (in the box and `deferred`) with a refusal.

        With `keep_unsettled` nothing that waits is answered: the run's next start carries it out.
        """
        if keep_unsettled:
            self.box.close(EsperdError("DRAINING"))
            return
        error = EsperdError("TRAINER_NOT_RUNNING", phase=phase)
        snapshot = self._snapshot
        for command in [*deferred, *self.box.close(error)]:
            self.settle(
                Outcome(
                    command.command_id,
                    CommandState.REJECTED,
                    snapshot.run.global_step,
                    snapshot.revision,
                    error.refusal(),
                    timeline=snapshot.run.timeline,
                )
            )
