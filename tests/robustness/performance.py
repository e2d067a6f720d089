"""Performs the script against a daemon that may die at any moment, and starts it again whenever it has.

A client of the ordinary kind: signed calls over gRPC, request ids that make asking again harmless. Notes down what it
was answered and what it saw, for the validators.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, Unreachable
from esper.client.sync import Client
from esper.leyline.v1.command_pb2 import Command
from esper.leyline.v1.run_service_pb2 import GetRunResponse
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_ACCEPTED,
    TRAINER_PHASE_FAILED,
    TRAINER_PHASE_FINISHED,
    TRAINER_PHASE_HALTED,
    TRAINER_PHASE_PAUSED,
)

from esperd.cli.keys import make_key_pair
from tests.robustness import small_task
from tests.robustness.crashing_daemon import Crash
from tests.robustness.history import Answer, History, Sighting, Told, read_history
from tests.robustness.processes import Launcher, Process, end
from tests.robustness.script import ACTS, Ask, CancelAsk, ClearAsk, Known, RaiseAsk, Request, pause_after

ANSWER_S = 60.0
"""The longest that anything may take, restarts included."""
_LOOK_S = 0.01
_MAX_STARTS_IN_VAIN = 20
_CALL_S = 2.0
_PERMISSIONS = ("observe", "command", "emergency", "operate")
_PASSING = {"DRAINING", "RUN_CATCHING_UP", "JOURNAL_UNAVAILABLE", "EMERGENCY_UNACKNOWLEDGED", "TRAINER_NOT_RUNNING",
            "AUTH_THROTTLED", "COMMAND_BOX_FULL", "PACED_OUT", "EPOCH_STALE", "CANCELLED"}  # fmt: skip
"""Refusals after which the same request is sent again."""

_STANDING = (TRAINER_PHASE_PAUSED, TRAINER_PHASE_HALTED)

AnswerT = TypeVar("AnswerT")


class RunFailedError(AssertionError):
    """The daemon's run failed, or the daemon would not start."""


@dataclass(slots=True)
class Performance:
    """One folder with one run, over as many starts of the daemon as it takes."""

    folder: Path
    launcher: Launcher
    overrides: Sequence[str]
    crashes: list[Crash] = field(default_factory=list)
    """What becomes of the first starts, in turn; later ones are left alone."""
    answers: list[Answer] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """How the starts that ended have ended."""
    known: Known = field(default_factory=Known)
    emergency_ids: dict[str, str] = field(default_factory=dict)
    num_starts: int = 0
    num_starts_in_vain: int = 0
    """Those since a call was last answered."""
    _process: Process | None = None
    _client: Client | None = None

    def __post_init__(self) -> None:
        shutil.copy(small_task.__file__, self.folder / "small_task.py")
        (self.folder / "esperd.toml").write_text(
            '[run]\ntask = "small_task:build"\nnum_threads = 1\ndirectory = "run"\n'
        )
        ring = self.folder / "run" / "keys.toml"
        make_key_pair("operator", _PERMISSIONS, ring, self._key_file, "", now_unix_s=time.time() - 1)

    @property
    def _key_file(self) -> Path:
        return self.folder / "operator.toml"

    @property
    def journal_path(self) -> Path:
        """The run's journal."""
        return self.folder / "run" / "journal.sqlite"

    @property
    def log(self) -> str:
        """What all starts have written."""
        return (self.folder / "daemon.log").read_text()

    @property
    def process(self) -> Process:
        """The newest start."""
        assert self._process is not None
        return self._process

    def history(self) -> History:
        """What is recorded of the run."""
        return read_history(self.journal_path, tuple(self.answers), tuple(self.told), tuple(self.sightings))

    # The script

    def perform(self) -> None:
        """The whole script, until the run is FINISHED."""
        for number, act in enumerate(ACTS):
            for request in act:
                self._make(request)
            pause = pause_after(number)
            if pause:
                self.settle(pause)
                self._learn(act)
        self.until_finished()

    def until_finished(self) -> None:
        """Look until the run is over; the daemon stays up."""
        self.until(lambda run: run.run.phase == TRAINER_PHASE_FINISHED)
        for label in self.known.command_ids:
            self.settle(label)

    def until(self, holds: Callable[[GetRunResponse], bool]) -> GetRunResponse:
        """Look at the run until this holds."""
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            run = self.look()
            if holds(run):
                return run
            if run.run.phase == TRAINER_PHASE_FAILED:
                raise RunFailedError(f"{run.run.failure}\n{self.log}")
            assert time.monotonic() < deadline_s, f"{run.run}\n{self.log}"
            time.sleep(_LOOK_S)

    def look(self) -> GetRunResponse:
        """The run as it is now."""
        run = self.call(lambda client: client.run())
        self.sightings.append(Sighting(self.num_starts, run.revision, run.run.timeline, run.run.global_step))
        return run

    def close(self) -> None:
        """End what is left."""
        self._leave_client()
        if self._process is not None:
            end(self._process)

    # One request

    def _make(self, request: Request) -> None:
        match request:
            case Ask(label, _, message, is_awaited):
                self.submit(label, lambda client: client.submit(message(self.known)))
                if is_awaited:
                    self.settle(label)
            case RaiseAsk(label, level):
                self._while_it_stands(lambda client: self._raise(client, level, label))
                self.answers.append(Answer(label))
            case ClearAsk(label, name):
                emergency_id = self.emergency_ids[name]
                self._while_it_stands(lambda client: client.clear_emergency(emergency_id, label, request_id=label))
                self.answers.append(Answer(label))
            case CancelAsk(label, target):
                self._while_it_stands(lambda client: self._cancel(client, self.known.command_ids[target], label))
                self.settle(target)

    def _while_it_stands(self, ask: Callable[[Client], object]) -> None:
        """Ask something that takes effect at once: only where the script means it to, and not while it catches up."""

        def ask_in_place(client: Client) -> bool:
            is_there = client.run().run.phase in _STANDING
            if is_there:
                ask(client)
            return is_there

        deadline_s = time.monotonic() + ANSWER_S
        while not self.call(ask_in_place):
            assert time.monotonic() < deadline_s, self.log
            time.sleep(_LOOK_S)

    def _raise(self, client: Client, level: int, label: str) -> None:
        raised = client.raise_emergency(level, label, request_id=label)  # type: ignore[arg-type]  # a number of the enum
        self.emergency_ids[label] = raised.emergency.emergency_id

    def submit(self, label: str, send: Callable[[Client], Command]) -> Command:
        """Send a request until it is accepted."""
        accepted = self.call(send)
        self.answers.append(Answer(label, accepted.command_id))
        self.known.command_ids[label] = accepted.command_id
        return accepted

    @staticmethod
    def _cancel(client: Client, command_id: str, label: str) -> None:
        try:
            client.cancel(command_id, label)
        except LeylineError as error:
            if error.reason != "COMMAND_NOT_CANCELLABLE":  # an earlier attempt has arrived
                raise

    def settle(self, label: str) -> Command:
        """Wait for the outcome of a command."""
        deadline_s = time.monotonic() + ANSWER_S
        command_id = self.known.command_ids[label]
        while True:
            command = self.call(lambda client: client.command(command_id, wait_s=1.0))
            if command.state > COMMAND_STATE_ACCEPTED:
                self.note(command)
                if command.seed_id and label.startswith("germinate"):
                    self.known.seed_ids[label] = command.seed_id
                return command
            assert time.monotonic() < deadline_s, f"{label} has no outcome\n{self.log}"

    def note(self, command: Command) -> None:
        """Keep what a client was told of a command's outcome."""
        if command.state > COMMAND_STATE_ACCEPTED:
            self.told.append(Told(command.command_id, command.state, command.global_step))

    def _learn(self, act: Sequence[Request]) -> None:
        """Note what the next act names: seeds that have germinated, checkpoints that were written."""
        for request in act:
            if request.kind == "germinate":
                self.settle(request.label)
            if request.kind == "checkpoint":
                self._learn_checkpoint(self.settle(request.label).global_step)

    def _learn_checkpoint(self, step: int) -> None:
        """Note the checkpoint of a step. Its row follows its command's outcome, and a daemon that was killed between
        the two writes it once more while it catches up.
        """

        def ids(run: GetRunResponse) -> list[str]:
            points = [point for point in run.restore_points if point.global_step == step]
            return [point.checkpoint_id for point in points if point.checkpoint_id]

        self.known.checkpoint_ids[step] = ids(self.until(lambda run: bool(ids(run))))[-1]

    # Calls that survive the daemon

    def call(self, make: Callable[[Client], AnswerT]) -> AnswerT:
        """Make a call until it is answered; a daemon that has ended is started again."""
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            client = self._reach()
            try:
                answer = make(client)
                self.num_starts_in_vain = 0
                return answer
            except Unreachable:
                self._leave_client()
            except LeylineError as error:
                if error.reason not in _PASSING and error.status != "UNAVAILABLE":
                    raise
            assert time.monotonic() < deadline_s, self.log
            time.sleep(_LOOK_S)

    def _reach(self) -> Client:
        """A client of a daemon that runs; starts one if none does."""
        if self._process is None or (status := self._process.poll()) is not None:
            if self._process is not None:
                assert status is not None
                self.statuses.append(status)
            self._leave_client()
            self._start()
        if self._client is None:
            credentials = Credentials.load(self._key_file)
            self._client = Client(f"unix:{self.folder / 'run' / 'leyline.sock'}", credentials, timeout_s=_CALL_S)
            self._client.__enter__()
        return self._client

    def _start(self) -> None:
        assert self.num_starts_in_vain < _MAX_STARTS_IN_VAIN, f"it ends again and again: {self.statuses}\n{self.log}"
        crash = self.crashes.pop(0) if self.crashes else None
        sets = [part for override in self.overrides for part in ("--set", override)]
        arguments = ["serve", str(self.folder / "esperd.toml"), *sets]
        assert not self.statuses or self.statuses[-1] != 1, f"it would not start\n{self.log[-5000:]}"
        self._process = self.launcher.start(arguments, self.folder / "daemon.log", crash)
        self.num_starts += 1
        self.num_starts_in_vain += 1

    def _leave_client(self) -> None:
        if self._client is not None:
            self._client.__exit__(None, None, None)
            self._client = None
