"""Every harmful blueprint is stopped by the right gate, the guard or the breaker, and the host's run goes on."""

import pytest
import torch

from esperd.kasmina.ports import StepAdvice
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import Isolation, Operation, Stage
from tests.unit.kasmina import chaos
from tests.unit.kasmina.harness import Run, assert_same, quick

LATE = 10**5


def chaotic(**options: object) -> Run:
    return Run(registry=chaos.chaos_registry(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("blueprint", "evidence"),
    [
        ("nan", "finite"),
        ("inf", "finite"),
        ("exploding", "first_output_ratio"),
        ("wrong_shape", "same_shape"),
        ("wrong_dtype", "same_dtype"),
        ("raises_forward", "builds"),
        ("raises_backward", "builds"),
        ("writes_input", "builds"),
        ("normed", "batch_norms"),
    ],
)
def test_g0_refuses_what_is_wrong_from_the_start(blueprint: str, evidence: str) -> None:
    """A bad probe output is refused with GATE_FAILED and the evidence; nothing has changed."""
    run = chaotic()
    with pytest.raises(EsperdError) as caught:
        run.germinate(blueprint, parameters={"delay": 0})
    assert caught.value.reason == "GATE_FAILED"
    assert evidence in caught.value.message
    assert run.notices("gate.evaluated")[-1].attributes["gate"] == "G0_SANITY"
    assert run.executor.seeds() == ()
    assert not run.optimizers.seeds
    assert not run.model.body._forward_hooks


@pytest.mark.parametrize(
    ("blueprint", "evidence"),
    [
        ("vanishing", "gradient_norm_floor"),
        ("late_writer", "input_untouched"),
    ],
)
def test_g1_culls_what_cannot_learn(blueprint: str, evidence: str) -> None:
    """A dry backward finds it; the seed is culled and the host is bit-identical to the undisturbed run."""
    run, twin = chaotic(), chaotic()
    seed_id = run.germinate(blueprint, parameters={"delay": 0}, auto_advance=True)
    run.steps(12)
    twin.steps(12)
    assert_same(run.fingerprint(), twin.fingerprint())
    culled = next(e for e in run.transitions(seed_id) if e.target is Stage.CULLED)
    assert culled.cause == "gate:G1_GRADIENT_HEALTH"
    assert culled.gate is not None
    assert any(evidence in f"{item.name} {item.detail}" for item in culled.gate.evidence if not item.passed)


@pytest.mark.parametrize("blueprint", ["nan", "inf", "raises_forward", "raises_backward"])
def test_faults_in_training_are_culled_and_not_felt(blueprint: str) -> None:
    """A seed that breaks while it trains leaves the host bit-identical."""
    settings = quick(min_training_steps=1000, max_training_steps=5000)
    run, twin = chaotic(settings=settings), chaotic(settings=settings)
    seed_id = run.germinate(blueprint, parameters={"delay": 6}, auto_advance=True)
    run.steps(25)
    twin.steps(25)
    assert_same(run.fingerprint(), twin.fingerprint())
    culled = next(e for e in run.transitions(seed_id) if e.target is Stage.CULLED)
    assert culled.cause == ("gradient_health" if blueprint in ("nan", "inf") else "seed:raised")
    assert run.notices("guard.tripped")


def test_exploding_in_training_never_blends() -> None:
    """An exploding seed fails G2: no amplitude of it helps."""
    run = chaotic()
    seed_id = run.germinate("exploding", parameters={"delay": 3}, auto_advance=True)
    run.steps(40)
    stages = [e.target for e in run.transitions(seed_id)]
    assert Stage.BLENDING not in stages
    assert Stage.CULLED in stages


def blending(run: Run, blueprint: str, **fields: object) -> int:
    """A sleeper, awake only when told, that has begun to blend."""
    seed_id = run.germinate(blueprint, parameters={"delay": LATE}, auto_advance=True, **fields)
    run.until(seed_id, Stage.BLENDING)
    run.steps(3)
    return seed_id


@pytest.mark.parametrize("isolation", [Isolation.DEFAULT, Isolation.RELEASED])
@pytest.mark.parametrize("blueprint", ["nan", "inf", "raises_forward", "raises_backward"])
def test_faults_while_blending_trip_at_once(blueprint: str, isolation: Isolation) -> None:
    """The activation passes through in the very step, the seed is culled, the host stays finite."""
    run = chaotic(settings=quick(alpha_steps=100))
    seed_id = blending(run, blueprint, isolation=isolation)
    run.seed(seed_id).module.delay = 1
    run.step()
    assert run.stage(seed_id) is Stage.CULLED
    wanted = "guard:non_finite" if blueprint in ("nan", "inf") else "seed:raised"
    assert run.transitions(seed_id)[-1].cause == wanted
    run.steps(5)
    assert torch.isfinite(torch.stack(run.losses)).all()
    assert all(torch.isfinite(tensor).all() for tensor in run.model.state_dict().values())
    assert not run.optimizers.seeds


def test_explosion_while_blending_skips_the_step_and_leaves_no_trace() -> None:
    """A loss out of proportion is confirmed by the counterfactual; weights and running statistics are as before."""
    run = chaotic(settings=quick(alpha_steps=25))
    run.steps(15)
    seed_id = run.germinate("exploding", parameters={"delay": LATE}, auto_advance=True)
    run.until(seed_id, Stage.BLENDING)
    run.steps(20)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.seed(seed_id).module.delay = 1
    run.step()
    assert run.advices[-1] is StepAdvice.SKIP
    assert run.transitions(seed_id)[-1].cause == "guard:loss"
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_slow_harm_is_found_by_the_probes() -> None:
    """A seed whose sign was flipped does no dramatic harm in one step; the paired probes cull it."""
    run = chaotic(settings=quick(alpha_steps=20, max_dwell_steps=5000))
    seed_id = run.germinate(auto_advance=True, auto_advance_until="BLENDING")
    run.until(seed_id, Stage.BLENDING)
    run.steps(25)
    seed = run.seed(seed_id)
    seed.amplitude = -6.0
    for _ in range(20):
        run.step()
        if run.stage(seed_id) is Stage.CULLED:
            break
    assert run.transitions(seed_id)[-1].cause in ("guard:probe", "guard:loss")


def test_slow_seed_fails_g3() -> None:
    """A seed that makes steps too slow does not pass the interface gate (time is injected)."""
    run: Run

    def slow() -> None:
        run.clock.now_s += 1.0

    run = Run(registry=chaos.chaos_registry(slow), settings=quick(max_step_time_ratio=2.0))
    original = run.host.forward

    seed_id = run.germinate("slow", parameters={"delay": 1}, auto_advance=True)
    run.until(seed_id, Stage.BLENDING)
    run.model.register_forward_pre_hook(lambda *_: setattr(run.clock, "now_s", run.clock.now_s + 0.1))
    run.steps(10)
    assert original is not None
    culled = next(e for e in run.transitions(seed_id) if e.target is Stage.CULLED)
    assert culled.cause == "gate:G3_INTERFACE"
    assert "step_time_ratio" in [i.name for i in culled.gate.evidence if not i.passed]  # type: ignore[union-attr]


def test_leaking_seed_blocks_its_site_until_released() -> None:
    """G5 finds the parameters that somebody still holds; the site stays blocked, and is free once they are gone."""
    chaos.LEAKED.clear()
    run = chaotic()
    seed_id = run.germinate("leaking", parameters={"delay": 0})
    run.step()
    run.apply(Operation.CULL, seed_id)
    run.steps(20)
    assert run.stage(seed_id) is Stage.RESETTING
    assert any("parameters_reachable" in notice.attributes for notice in run.notices("gate.evaluated"))
    with pytest.raises(EsperdError, match="embargo"):
        run.germinate()
    chaos.LEAKED.clear()
    run.steps(3)
    assert run.stage(seed_id) is Stage.DORMANT
    assert run.germinate()


def test_isolation_breaker_opens_at_the_third_violation() -> None:
    """A seed that keeps writing the host's weights is culled with a critical notice; the run goes on."""
    run = chaotic(settings=quick(min_training_steps=1000, max_training_steps=5000))
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.TRAINING)
    weight = run.model.head.bias

    def leak(*_: object) -> None:
        with torch.no_grad():
            weight.add_(1e-6)

    run.seed(seed_id).module.register_forward_hook(leak)
    run.steps(45)
    assert run.transitions(seed_id)[-1].target in (Stage.CULLED, Stage.EMBARGOED, Stage.RESETTING, Stage.DORMANT)
    assert len(run.notices("isolation.violated")) == 3
    assert run.notices("isolation.breaker_open")[0].level == "critical"
