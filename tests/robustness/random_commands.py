"""Random commands, as an operator and a policy in a great hurry would send them; nearly all kinds, none with a step.

Each looks at the run first, so that most of them can be carried out. What the daemon refuses at the door is no matter.
"""

import itertools
import random
from collections.abc import Callable

from esper.client.errors import LeylineError
from esper.client.sync import Client
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1 import vocabulary_pb2 as words
from esper.leyline.v1.state_pb2 import SeedState

from tests.robustness.history import Answer
from tests.robustness.performance import Performance
from tests.robustness.script import seed_message

_BLUEPRINTS = ("residual_linear", "residual_mlp")
_NEXT = {
    words.SEED_STAGE_GERMINATED: words.SEED_OPERATION_START_TRAINING,
    words.SEED_STAGE_TRAINING: words.SEED_OPERATION_START_GRAFTING,
    words.SEED_STAGE_BLENDING: words.SEED_OPERATION_STABILIZE,
    words.SEED_STAGE_SHADOWING: words.SEED_OPERATION_EVALUATE,
    words.SEED_STAGE_PROBATIONARY: words.SEED_OPERATION_FOSSILIZE,
}
_BACK_STEPS = (1, 80)
_BY_CHANCE = ("final", "emergency")


class RandomCommands:
    """Sends one command after another to a performance."""

    def __init__(self, performance: Performance, source: random.Random) -> None:
        self._performance = performance
        self._source = source
        self._numbers = itertools.count(1)
        self._open: list[str] = []
        """Ids of commands whose outcome nobody has looked at."""
        self._weighted: list[tuple[Callable[[], None], int]] = [
            (self._germinate, 6),
            (self._advance, 12),
            (self._leave, 2),
            (self._other_seed_operation, 2),
            (self._rate, 8),
            (self._reset, 2),
            (self._pause_and_resume, 2),
            (self._checkpoint, 2),
            (self._roll_back, 2),
            (self._breaker, 1),
            (self._emergency, 1),
            (self._cancel, 2),
            (self._look_at_an_outcome, 6),
        ]

    def send_one(self) -> None:
        """One command, whatever it is; a refusal is taken as it comes."""
        acts, weights = zip(*self._weighted, strict=True)
        try:
            self._source.choices(acts, weights)[0]()
        except LeylineError as error:
            _check(error)
        self._performance.look()

    def bring_to_its_end(self) -> None:
        """Clear what holds the run, stop it, and wait until it is finished and every outcome is there."""
        performance = self._performance
        for emergency in performance.call(lambda client: client.emergencies()).emergencies:
            self._clear(emergency.emergency_id)
        for action in (pb.RUN_ACTION_RESUME, pb.RUN_ACTION_STOP):
            name = self._name()
            self._submit(name, self._run_control(name, action))
        performance.until_finished()

    # One act each

    def _germinate(self) -> None:
        sites = self._performance.call(lambda client: client.sites()).sites
        if not sites:
            return  # a start that has not loaded its task yet
        name = self._name()
        operation = pb.CommandSeedOperation(
            operation=words.SEED_OPERATION_GERMINATE,
            site=self._source.choice(sites).site,
            blueprint_id=self._source.choice(_BLUEPRINTS),
            auto_advance=self._source.random() < 0.5,
        )
        self._submit(name, pb.AdaptationCommand(request_id=name, reason=name, seed_operation=operation))

    def _advance(self) -> None:
        live = [seed for seed in self._seeds() if seed.stage in _NEXT]
        if live:
            seed = self._source.choice(live)
            self._operate(seed.seed_id, _NEXT[seed.stage])

    def _leave(self) -> None:
        live = [seed for seed in self._seeds() if seed.stage in _NEXT]
        if live:
            operations = (words.SEED_OPERATION_CULL, words.SEED_OPERATION_CANCEL)
            self._operate(self._source.choice(live).seed_id, self._source.choice(operations))

    def _other_seed_operation(self) -> None:
        seeds = self._seeds()
        if seeds:
            operation = self._source.choice((words.SEED_OPERATION_FINE_TUNE, words.SEED_OPERATION_SET_ALPHA))
            alpha = pb.AlphaSchedule(curve=words.ALPHA_CURVE_LINEAR, num_steps=4, target=self._source.uniform(0.3, 0.9))
            is_alpha = operation == words.SEED_OPERATION_SET_ALPHA
            self._operate(self._source.choice(seeds).seed_id, operation, alpha if is_alpha else None)

    def _rate(self) -> None:
        seeds = [f"seed:{seed.seed_id}" for seed in self._seeds() if seed.stage in _NEXT]
        name = self._name()
        adjustment = pb.CommandOptimizerAdjustment(
            optimizer_id=self._source.choice(["host", "all", *seeds]),
            hyperparameters={"lr": self._source.uniform(0.001, 0.02)},
            action=pb.OPTIMIZER_ACTION_SET_HYPERPARAMETERS,
        )
        self._submit(name, pb.AdaptationCommand(request_id=name, reason=name, optimizer_adjustment=adjustment))

    def _reset(self) -> None:
        name = self._name()
        adjustment = pb.CommandOptimizerAdjustment(optimizer_id="host", action=pb.OPTIMIZER_ACTION_RESET_STATE)
        self._submit(name, pb.AdaptationCommand(request_id=name, reason=name, optimizer_adjustment=adjustment))

    def _pause_and_resume(self) -> None:
        for action in (pb.RUN_ACTION_PAUSE, pb.RUN_ACTION_RESUME):
            name = self._name()
            self._submit(name, self._run_control(name, action))

    def _checkpoint(self) -> None:
        name = self._name()
        message = pb.AdaptationCommand(request_id=name, reason=name, checkpoint=pb.CommandCheckpoint(note=name))
        self._submit(name, message)

    def _roll_back(self) -> None:
        run = self._performance.look()
        name = self._name()
        target = pb.CommandRollback(global_step=max(0, run.run.global_step - self._source.randint(*_BACK_STEPS)))
        # Those that the daemon's ends and emergencies have left may be of a safe point at which more was done later.
        named = [point.checkpoint_id for point in run.restore_points]
        stored = [name for name in named if name and not name.endswith(_BY_CHANCE)]
        seeds = self._seeds()
        if stored and self._source.random() < 0.3:
            target = pb.CommandRollback(checkpoint_id=self._source.choice(stored))
        elif seeds and self._source.random() < 0.3:
            target = pb.CommandRollback(before_seed_id=self._source.choice(seeds).seed_id)
        self._submit(name, pb.AdaptationCommand(request_id=name, reason=name, rollback=target))

    def _breaker(self) -> None:
        for state in (words.CIRCUIT_BREAKER_STATE_OPEN, words.CIRCUIT_BREAKER_STATE_CLOSED):
            name = self._name()
            breaker = pb.CommandCircuitBreaker(name="isolation", desired_state=state)
            self._submit(name, pb.AdaptationCommand(request_id=name, reason=name, circuit_breaker=breaker))

    def _emergency(self) -> None:
        name = self._name()
        level = self._source.randint(words.EMERGENCY_LEVEL_NOTICE, words.EMERGENCY_LEVEL_HALT)
        performance = self._performance
        raised = performance.call(lambda client: client.raise_emergency(level, name, request_id=name))  # type: ignore[arg-type]
        if raised.durable:
            performance.answers.append(Answer(name))
        self._clear(raised.emergency.emergency_id)

    def _clear(self, emergency_id: str) -> None:
        name = self._name()
        self._quietly(lambda client: client.clear_emergency(emergency_id, name, request_id=name))

    def _cancel(self) -> None:
        if self._open:
            command_id = self._source.choice(self._open)
            self._quietly(lambda client: client.cancel(command_id, "no longer wanted"))

    def _look_at_an_outcome(self) -> None:
        if self._open:
            command_id = self._open.pop(self._source.randrange(len(self._open)))
            self._performance.note(self._performance.call(lambda client: client.command(command_id)))

    # How

    def _operate(self, seed_id: str, operation: words.SeedOperation, alpha: pb.AlphaSchedule | None = None) -> None:
        name = self._name()
        more = {} if alpha is None else {"alpha": alpha}
        self._submit(name, seed_message(name, seed_id, operation, **more))  # type: ignore[arg-type]  # a field by name

    def _submit(self, name: str, message: pb.AdaptationCommand) -> None:
        accepted = self._performance.submit(name, lambda client: client.submit(message))
        self._open.append(accepted.command_id)

    def _seeds(self) -> list[SeedState]:
        return list(self._performance.call(lambda client: client.seeds()).seeds)

    def _quietly(self, ask: Callable[[Client], object]) -> None:
        """Ask, and do not mind a refusal."""
        try:
            self._performance.call(ask)
        except LeylineError as error:
            _check(error)

    @staticmethod
    def _run_control(name: str, action: pb.RunAction) -> pb.AdaptationCommand:
        return pb.AdaptationCommand(request_id=name, reason=name, run_control=pb.CommandRunControl(action=action))

    def _name(self) -> str:
        return f"random-{next(self._numbers)}"


def _check(error: LeylineError) -> None:
    """A refusal is the daemon's right; a fault of its own is not."""
    assert error.status not in ("INTERNAL", "UNKNOWN"), error
