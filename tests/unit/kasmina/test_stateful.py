"""Random walks of commands and steps against the real executor, beside a plain model of what they may do."""

from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from esperd.kasmina.lifecycle import GRAFTED, LIVE, TABLE
from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import TransitionEvent
from esperd.leyline.vocabulary import AlphaCurve, Operation, Stage
from tests.unit.kasmina.chaos import chaos_registry
from tests.unit.kasmina.harness import Run, quick

SITES = ("stem", "body", "nowhere")
BLUEPRINTS = ("residual_conv", "squeeze_excite", "nan", "wrong_shape", "exploding", "no_such")
NEXT = {
    Operation.START_TRAINING: (Stage.GERMINATED, Stage.TRAINING),
    Operation.START_GRAFTING: (Stage.TRAINING, Stage.BLENDING),
    Operation.STABILIZE: (Stage.BLENDING, Stage.SHADOWING),
    Operation.EVALUATE: (Stage.SHADOWING, Stage.PROBATIONARY),
    Operation.FOSSILIZE: (Stage.PROBATIONARY, Stage.FOSSILIZED),
}


class Walk(RuleBasedStateMachine):
    """The model knows only stages by seed, and which moves are legal; gates may refuse, never more than that."""

    @initialize()
    def begin(self) -> None:
        self.run = Run(
            registry=chaos_registry(),
            settings=quick(min_training_steps=2, alpha_steps=2, embargo_steps=2, wanted_gain_ratio=-1.0, rent=-9.0),
            batch_size=8,
        )
        self.stages: dict[int, Stage] = {}
        self.seen = 0

    @rule(site=st.sampled_from(SITES), blueprint=st.sampled_from(BLUEPRINTS), auto=st.booleans())
    def germinate(self, site: str, blueprint: str, auto: bool) -> None:
        delay = {"delay": 8.0} if blueprint in ("nan", "exploding") else {}
        seed_id = self._apply(
            Operation.GERMINATE, site=site, blueprint_id=blueprint, auto_advance=auto, parameters=delay
        )
        if seed_id is not None:
            assert site != "nowhere"
            assert blueprint not in ("no_such", "wrong_shape")
            assert not self.run.executor._garden.held
            self.stages[seed_id] = Stage.GERMINATED
        self._follow()

    @rule(number=st.integers(1, 6), operation=st.sampled_from([*NEXT, Operation.ADVANCE]))
    def advance(self, number: int, operation: Operation) -> None:
        before = self.stages.get(number, Stage.DORMANT)
        done = self._apply(operation, number)
        if done is not None:
            stage, target = NEXT.get(operation, (before, TABLE[before, Operation.ADVANCE].target))
            assert before is stage
            self.stages[number] = target
        self._follow()

    @rule(number=st.integers(1, 6), operation=st.sampled_from([Operation.CULL, Operation.CANCEL]))
    def remove(self, number: int, operation: Operation) -> None:
        before = self.stages.get(number, Stage.DORMANT)
        done = self._apply(operation, number)
        assert (done is not None) is ((before, operation) in TABLE)
        if done is not None:
            self.stages[number] = Stage.CULLED
        self._follow()

    @rule(number=st.integers(1, 6), share=st.floats(0.0, 1.0))
    def set_alpha(self, number: int, share: float) -> None:
        schedule = AlphaSchedule(AlphaCurve.LINEAR, 2, share)
        done = self._apply(Operation.SET_ALPHA, number, alpha=schedule)
        assert done is None or self.stages[number] is Stage.BLENDING

    @rule(number=st.integers(1, 6))
    def fine_tune(self, number: int) -> None:
        done = self._apply(Operation.FINE_TUNE, number)
        assert (done is not None) is (self.stages.get(number) is Stage.PROBATIONARY)

    @rule(held=st.booleans())
    def conservative(self, held: bool) -> None:
        (self.run.executor.hold("test") if held else self.run.executor.release())

    @rule(count=st.integers(1, 6))
    def steps(self, count: int) -> None:
        for _ in range(count):
            moved = len(self.run.events)
            self.run.step()
            told = [e.seed_id for e in self.run.events[moved:] if isinstance(e, TransitionEvent)]
            assert len(set(told)) == len(told), "one seed moved twice at one safe point"
        self._follow()

    @invariant()
    def the_executor_agrees_with_the_model(self) -> None:
        if not hasattr(self, "run"):
            return
        views = {view.seed_id: view.stage for view in self.run.executor.seeds()}
        assert views == {i: stage for i, stage in self.stages.items() if stage is not Stage.DORMANT}
        assert self.run.executor.active is any(stage in LIVE for stage in views.values())

    @invariant()
    def parameters_have_one_owner_and_hooks_match(self) -> None:
        if not hasattr(self, "run"):
            return
        run = self.run
        owned = [p for group in run.optimizers.host.param_groups for p in group["params"]]
        owned += [p for optimizer in run.optimizers.seeds.values() for p in optimizer.param_groups[0]["params"]]
        assert len({id(p) for p in owned}) == len(owned)
        assert set(run.optimizers.seeds) == {i for i, stage in self.stages.items() if stage in LIVE}
        for slot in run.executor._garden.slots.values():
            assert slot.has_hook is bool(slot.live or slot.fossils)
            assert sum(seed.stage in GRAFTED for seed in slot.live) <= 1

    @invariant()
    def the_host_stays_finite(self) -> None:
        if hasattr(self, "run"):
            assert all(bool(torch.isfinite(tensor).all()) for tensor in self.run.model.state_dict().values())

    def _apply(self, operation: Operation, seed_id: int = 0, **fields: Any) -> int | None:
        try:
            return self.run.apply(operation, seed_id, **fields)
        except EsperdError:
            return None

    def _follow(self) -> None:
        """Moves that the executor made by itself; each must be legal."""
        for event in self.run.events[self.seen :]:
            if isinstance(event, TransitionEvent):
                known = self.stages.get(event.seed_id, Stage.DORMANT)
                assert event.source in (known, Stage.DORMANT, event.source)
                assert any(
                    stage is event.source and found.target is event.target for (stage, _), found in TABLE.items()
                )
                self.stages[event.seed_id] = event.target
        self.seen = len(self.run.events)


TestWalk = Walk.TestCase
TestWalk.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
