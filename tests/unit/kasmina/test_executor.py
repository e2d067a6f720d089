"""Commands, stages, dwell, candidates, conservative mode and views of the real executor on a small host."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esperd.kasmina.streams import stream_seed
from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import TransitionEvent
from esperd.leyline.vocabulary import AlphaCurve, BlendMode, Gate, Isolation, Operation, Stage, Verdict
from tests.unit.kasmina.harness import ConvHost, Run, quick

WHOLE_LIFE = [
    Stage.GERMINATED,
    Stage.TRAINING,
    Stage.BLENDING,
    Stage.SHADOWING,
    Stage.PROBATIONARY,
    Stage.FOSSILIZED,
]


def refused(reason: str, run: Run, *args: Any, **fields: Any) -> EsperdError:
    """The command is refused with this reason and nothing has changed."""
    before = run.executor.seeds(), run.fingerprint(), len(run.optimizers.seeds)
    transitions = [event for event in run.events if isinstance(event, TransitionEvent)]
    with pytest.raises(EsperdError) as caught:
        run.apply(*args, **fields)
    assert caught.value.reason == reason, caught.value
    after = run.executor.seeds(), run.fingerprint(), len(run.optimizers.seeds)
    assert [view.stage for view in before[0]] == [view.stage for view in after[0]]
    assert all(torch.equal(a, after[1][name]) for name, a in before[1].items())
    assert before[2] == after[2]
    assert [event for event in run.events if isinstance(event, TransitionEvent)] == transitions
    return caught.value


def test_auto_advance_goes_one_stage_at_a_time_with_evidence() -> None:
    """A whole life: every stage in order, each with its gate's evidence, never two at one safe point."""
    run = Run()
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.FOSSILIZED)
    told = run.transitions(seed_id)
    assert [event.target for event in told] == WHOLE_LIFE
    assert [event.gate.gate for event in told if event.gate is not None] == [
        Gate.G0_SANITY,
        Gate.G1_GRADIENT_HEALTH,
        Gate.G2_STABILITY,
        Gate.G3_INTERFACE,
        Gate.G4_SYSTEM_IMPACT,
        Gate.G4_SYSTEM_IMPACT,
    ]
    assert all(event.gate is not None and event.gate.evidence for event in told)
    assert told[-1].gate is not None
    assert told[-1].gate.purpose == "commit"
    steps = [event.global_step for event in told]
    assert len(set(steps)) == len(steps)
    assert all(event.revision == 0 and event.unix_s == run.clock.now_s for event in told)


def test_auto_advance_stops_where_told() -> None:
    """auto_advance_until is the last stage that is reached without a command."""
    run = Run()
    seed_id = run.germinate(auto_advance=True, auto_advance_until="TRAINING")
    run.steps(40)
    assert run.stage(seed_id) is Stage.TRAINING


def test_by_hand_through_every_stage() -> None:
    """Each operation moves one stage; one sent too early or in the wrong stage is refused with the seed's story."""
    run = Run(settings=quick(min_dwell_steps=2))
    seed_id = run.germinate()
    refused("SEED_DWELL", run, Operation.START_TRAINING, seed_id)
    run.steps(2)
    story = refused("SEED_STAGE", run, Operation.FOSSILIZE, seed_id)
    assert "GERMINATED at step 0" in story.message
    assert "PROBATIONARY" in story.message
    run.apply(Operation.START_TRAINING, seed_id)
    refused("SEED_DWELL", run, Operation.START_GRAFTING, seed_id)
    refused("SEED_NOT_BLENDING", run, Operation.SET_ALPHA, seed_id, alpha=AlphaSchedule())
    run.steps(60)
    run.apply(Operation.START_GRAFTING, seed_id)
    run.steps(3)
    refused("GATE_UNMEASURED", run, Operation.STABILIZE, seed_id)
    refused("ALPHA_BUSY", run, Operation.SET_ALPHA, seed_id, alpha=AlphaSchedule(target=0.5))
    run.steps(3)
    run.apply(Operation.STABILIZE, seed_id)
    run.steps(10)
    run.apply(Operation.EVALUATE, seed_id)
    run.apply(Operation.FINE_TUNE, seed_id)
    assert run.seed(seed_id).joint
    run.steps(30)
    run.apply(Operation.ADVANCE, seed_id)
    assert run.stage(seed_id) is Stage.FOSSILIZED
    refused("SEED_STAGE", run, Operation.CULL, seed_id)
    assert [event.target for event in run.transitions(seed_id)] == WHOLE_LIFE
    assert all(event.cause == "c-1" for event in run.transitions(seed_id))


def test_failed_gate_is_reported_and_refused() -> None:
    """A gate that fails at a command answers GATE_FAILED, with all evidence in a notice, and the seed stays."""
    run = Run(settings=quick(max_output_ratio=1e-9))
    seed_id = run.germinate()
    run.step()
    run.apply(Operation.START_TRAINING, seed_id)
    run.steps(60)
    error = refused("GATE_FAILED", run, Operation.START_GRAFTING, seed_id)
    assert "output_ratio" in error.message
    assert run.notices("gate.evaluated")[-1].attributes["verdict"] == "FAILED"
    view = run.view(seed_id)
    assert view is not None
    assert [g.verdict for g in view.gates if g.gate is Gate.G2_STABILITY] == [Verdict.FAILED]


def test_germination_is_refused_for_every_reason_in_the_catalogue() -> None:
    """Unknown site, blueprint, parameter, stage name, unsuitable blend, limits, occupation, conservative mode."""
    run = Run(settings=quick(max_live_seeds=3, max_candidates_per_site=2, alpha_steps=300))
    good = {"site": "body", "blueprint_id": "residual_conv"}
    refused("SITE_UNKNOWN", run, Operation.GERMINATE, **{**good, "site": "nowhere"})
    refused("BLUEPRINT_UNKNOWN", run, Operation.GERMINATE, **{**good, "blueprint_id": "x"})
    refused("BLUEPRINT_PARAMETER", run, Operation.GERMINATE, **good, parameters={"expansion": 99.0})
    refused("COMMAND_INVALID", run, Operation.GERMINATE, **good, auto_advance_until="LATER")
    refused("COMMAND_INVALID", run, Operation.GERMINATE, **good, alpha=AlphaSchedule(num_steps=0))
    refused("BLEND_UNSUITABLE", run, Operation.GERMINATE, **good, blend_mode=BlendMode.CONFIDENCE)
    refused("SEED_UNKNOWN", run, Operation.CULL, 77)
    run.executor.hold("policy lost")
    assert "policy lost" in refused("RUN_CONSERVATIVE", run, Operation.GERMINATE, **good).message
    run.executor.release()
    first = run.germinate(auto_advance=True)
    run.germinate()
    refused("SEED_LIMIT", run, Operation.GERMINATE, **good)
    run.germinate(site="stem")
    refused("SEED_LIMIT", run, Operation.GERMINATE, **{**good, "site": "stem"})
    run.until(first, Stage.BLENDING)
    refused("SITE_OCCUPIED", run, Operation.GERMINATE, **good)


@pytest.mark.parametrize(
    ("setting", "evidence"),
    [
        ({"max_parameter_ratio": 0.01}, "parameter_ratio"),
        ({"max_seed_flops_ratio": 0.01}, "flops_ratio"),
        ({"max_memory_bytes": 10}, "memory_bytes"),
    ],
)
def test_g0_holds_the_budgets(setting: dict[str, Any], evidence: str) -> None:
    """Parameters, FLOPs and memory at the real shape are budgets of G0."""
    run = Run(settings=quick(**setting))
    assert (
        evidence in refused("GATE_FAILED", run, Operation.GERMINATE, site="body", blueprint_id="residual_conv").message
    )


def test_only_the_best_candidate_grafts() -> None:
    """Candidates train side by side; one goes on, the others leave without embargo and without a trace."""
    run = Run()
    ids = [run.germinate(name, auto_advance=True) for name in ("residual_conv", "conv1x1", "squeeze_excite")]
    run.until(ids[0], Stage.TRAINING)
    run.step()
    assert {run.stage(seed_id) for seed_id in ids} == {Stage.TRAINING}
    for _ in range(120):
        run.step()
        grafted = run.executor._garden.slots["body"].grafted
        if grafted is not None:
            break
    assert grafted is not None
    culled = [seed_id for seed_id in ids if seed_id != grafted.seed_id]
    causes = [next(e for e in run.transitions(i) if e.target is Stage.CULLED).cause for i in culled]
    assert f"rival:{grafted.seed_id}" in causes
    assert set(causes) <= {f"rival:{grafted.seed_id}", "gate:G2_STABILITY"}
    assert set(run.optimizers.seeds) == {grafted.seed_id}


def test_conservative_mode_holds_candidates_and_lets_blends_finish() -> None:
    """Held: a candidate stays in TRAINING, even past its limit; a blending seed goes on to the end."""
    run = Run(settings=quick(max_training_steps=40))
    first = run.germinate(auto_advance=True)
    run.until(first, Stage.BLENDING)
    second = run.germinate(site="stem", auto_advance=True)
    run.executor.hold("a breaker is open")
    run.until(first, Stage.FOSSILIZED)
    run.steps(60)
    assert run.stage(second) is Stage.TRAINING
    run.executor.release()
    run.steps(2)
    assert run.stage(second) is not Stage.TRAINING


def test_max_dwell_culls_with_the_reason() -> None:
    """A seed that nobody advances is culled at the maximum dwell."""
    run = Run(settings=quick(max_dwell_steps=6))
    seed_id = run.germinate()
    run.steps(6)
    culled = run.transitions(seed_id)[-1]
    assert (culled.target, culled.cause) == (Stage.CULLED, "max_dwell")


def test_fossils_stack_and_join_the_host() -> None:
    """A second seed grows on the first; both are joint, in the host's optimizer, and the keys stay the host's."""
    run = Run(settings=quick(min_training_steps=30, wanted_gain_ratio=-5.0, non_inferiority_ratio=5.0, rent=-100.0))
    run.optimizers.lr = 2e-3  # slow learners: there is still something to gain for the second seed
    run.optimizers.host.param_groups[0]["lr"] = 2e-3
    for blueprint_id in ("residual_conv", "conv1x1", "depthwise", "conv_light", "residual_conv"):
        if len(run.executor._garden.slots["body"].fossils) == 2:
            break
        seed_id = run.germinate(blueprint_id, auto_advance=True)
        for _ in range(400):
            run.step()
            if run.stage(seed_id) in (Stage.FOSSILIZED, Stage.DORMANT):
                break
    assert len(run.executor._garden.slots["body"].fossils) == 2
    grown = run.executor.grown_parameters()
    owned = [p for group in run.optimizers.host.param_groups for p in group["params"]]
    assert len({id(p) for p in owned}) == len(owned) == len(list(run.model.parameters())) + len(grown)
    assert not run.executor.active
    assert list(run.model.state_dict()) == list(ConvHost().state_dict())
    before = [p.detach().clone() for p in grown]
    run.steps(2)
    assert any(not torch.equal(a, b) for a, b in zip(before, grown, strict=True))
    assert run.executor.fossil_flops_per_unit > 0


@pytest.mark.parametrize(
    "mode", [mode for mode in BlendMode if mode not in (BlendMode.UNSPECIFIED, BlendMode.CONFIDENCE)]
)
def test_every_blend_mode_fossilizes_without_changing_the_output(mode: BlendMode) -> None:
    """In PROBATIONARY alpha is full, so that fossilizing changes the evaluation output by exactly 0."""
    run = Run(settings=quick(min_training_steps=30, wanted_gain_ratio=-5.0, non_inferiority_ratio=5.0, rent=-100.0))
    seed_id = run.germinate(auto_advance=True, blend_mode=mode, auto_advance_until="PROBATIONARY")
    run.until(seed_id, Stage.PROBATIONARY)
    view = run.view(seed_id)
    assert view is not None
    assert view.alpha == 1.0
    run.steps(30)
    x = torch.randn(5, 1, 6, 6)
    run.model.eval()
    with torch.no_grad():
        before = run.model(x)
        run.apply(Operation.FOSSILIZE, seed_id)
        after = run.model(x)
    assert run.stage(seed_id) is Stage.FOSSILIZED
    assert torch.equal(before, after)


def test_shadowing_freezes_the_seed() -> None:
    """While it is judged the seed stands still; the host goes on."""
    run = Run()
    seed_id = run.germinate(auto_advance=True, auto_advance_until="SHADOWING")
    run.until(seed_id, Stage.SHADOWING)
    before = [p.detach().clone() for p in run.seed(seed_id).parameters]
    host = run.model.head.weight.detach().clone()
    run.steps(6)
    assert all(torch.equal(a, b) for a, b in zip(before, run.seed(seed_id).parameters, strict=True))
    assert not torch.equal(host, run.model.head.weight)
    assert run.view(seed_id).contributions[-1].kind == "dependence"  # type: ignore[union-attr]


def test_set_alpha_retargets_from_hold() -> None:
    """SET_ALPHA moves a holding blend to another target; Bernoulli never goes past blend_alpha."""
    run = Run()
    seed_id = run.germinate(auto_advance=True, auto_advance_until="BLENDING")
    run.until(seed_id, Stage.BLENDING)
    run.steps(6)
    assert run.view(seed_id).alpha == 0.9  # type: ignore[union-attr]
    run.apply(Operation.SET_ALPHA, seed_id, alpha=AlphaSchedule(AlphaCurve.LINEAR, 4, 0.5))
    run.steps(5)
    assert run.view(seed_id).alpha == 0.5  # type: ignore[union-attr]
    refused("COMMAND_INVALID", run, Operation.SET_ALPHA, seed_id)


def test_embargo_doubles_for_the_same_blueprint_and_cancel_leaves_none() -> None:
    """A cull blocks the site, twice as long the second time; CANCEL withdraws a candidate without an embargo."""
    run = Run(settings=quick(embargo_steps=4))
    spans = []
    for _ in range(2):
        seed_id = run.germinate()
        run.apply(Operation.CULL, seed_id)
        site = next(view for view in run.executor.sites() if view.site == "body")
        spans.append(site.embargoed_until_step - run.step_number)
        refused("SITE_EMBARGOED", run, Operation.GERMINATE, site="body", blueprint_id="residual_conv")
        run.steps(12)
    assert spans == [4, 8]
    run.apply(Operation.CANCEL, run.germinate())
    assert run.germinate()


def test_embargo_in_seconds_uses_the_injected_clock() -> None:
    """A site is blocked for steps and for time."""
    run = Run(settings=quick(embargo_steps=1, embargo_s=60.0))
    run.apply(Operation.CULL, run.germinate())
    run.steps(10)
    refused("SITE_EMBARGOED", run, Operation.GERMINATE, site="body", blueprint_id="residual_conv")
    run.clock.now_s += 61
    run.steps(3)
    assert run.germinate()


class Tied(nn.Module):
    """One block used under two names, and a tuple for an output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        block = Pair()
        self.blocks = nn.ModuleList([block, block])
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h, _ = block(h)
        return self.head(h)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, h: Tensor) -> tuple[Tensor, str]:
        return torch.tanh(self.inner(h)), "extra"


class Rows:
    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 4, generator=self.generator)
        return x, (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 1).long()


def test_tied_modules_are_one_site_and_tuples_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared module is one site, called twice a pass; the rest of a tuple output is left alone."""
    import tests.unit.kasmina.harness as harness

    monkeypatch.setattr(harness, "Data", lambda *_args: Rows())
    run = Run(model=Tied(), sites=["blocks.*"], data=Rows())
    assert [view.site for view in run.executor.sites()] == ["blocks.0"]
    seed_id = run.germinate("residual_mlp" if "residual_mlp" in run_blueprints(run) else run_blueprints(run)[0],
                            site="blocks.0", auto_advance=True)  # fmt: skip
    run.steps(30)
    assert torch.isfinite(torch.stack(run.losses)).all()
    assert run.stage(seed_id) is not Stage.GERMINATED


def run_blueprints(run: Run) -> list[str]:
    return [offer.blueprint_id for offer in run.executor.sites()[0].offers]


def test_unknown_site_pattern_names_what_there_is() -> None:
    """A pattern that names no module is an error that lists the modules; a pattern never crosses a dot."""
    with pytest.raises(EsperdError) as caught:
        Run(sites=["layer*"])
    assert caught.value.reason == "SITE_PATTERN"
    assert "stem" in caught.value.message
    assert [view.site for view in Run(sites=["*"]).executor.sites()][:2] == ["stem", "norm"]


def test_site_views_show_costs() -> None:
    """Every admissible blueprint has its cost at the site's real shape."""
    view = Run().executor.sites()[0]
    assert view.activation_shape == (8, 4, 6, 6)
    assert view.dtype == "float32"
    assert view.vacant
    assert all(offer.cost.forward_flops >= 0 and offer.cost.num_parameters > 0 for offer in view.offers)


def test_flops_are_accounted() -> None:
    """Seeds, shadow passes and probes are counted; nothing is counted while nothing grows."""
    run = Run()
    run.steps(3)
    assert run.executor.extra_flops == 0.0
    seed_id = run.germinate(auto_advance=True)
    run.steps(4)
    view = run.view(seed_id)
    assert view is not None
    assert run.executor.extra_flops >= 3 * 16 * (view.cost.forward_flops + view.cost.backward_flops)


def test_streams_are_functions_of_their_names() -> None:
    """Equal names give equal seeds, different names different ones, all within 63 bits."""
    seeds = {stream_seed(1, 2, step, purpose) for step in range(50) for purpose in range(5)}
    assert len(seeds) == 250
    assert stream_seed(1, 2, 3) == stream_seed(1, 2, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_released_and_fine_tuned_seeds_are_joint() -> None:
    """RELEASED attaches the input while blending; DEFAULT only on probation."""
    run = Run(settings=quick(alpha_steps=50))
    released = run.germinate(auto_advance=True, isolation=Isolation.RELEASED)
    run.until(released, Stage.BLENDING)
    assert run.seed(released).joint
    refused("SEED_STAGE", run, Operation.FINE_TUNE, released)


@pytest.mark.parametrize(
    "options", [{"autocast": True}, {"settings": quick(strict_evidence=True, error_level=0.3, min_training_steps=60)}]
)
def test_whole_life_under_autocast_and_with_strict_evidence(options: dict[str, Any]) -> None:
    """bf16 autocast and the betting process both carry a useful seed to the end."""
    run = Run(**options)
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.FOSSILIZED)
    assert torch.isfinite(torch.stack(run.losses)).all()
    names = [item.name for event in run.transitions(seed_id) if event.gate for item in event.gate.evidence]
    assert ("bet_p_value" in names) is ("settings" in options)


def test_a_seed_that_helps_too_little_is_given_time() -> None:
    """The commit gate measures a helpful seed on probation afresh, at a smaller level, before it gives it up."""
    run = Run(settings=quick(wanted_gain_ratio=5.0, max_dwell_steps=60))
    seed_id = run.germinate(auto_advance=True)
    run.until(seed_id, Stage.PROBATIONARY)
    assert run.seed(seed_id).joint
    first = run.seed(seed_id).judgement
    for _ in range(200):
        run.step()
        if run.stage(seed_id) is not Stage.PROBATIONARY:
            break
    told = [event for event in run.notices("gate.evaluated") if event.attributes["gate"] == "G4_SYSTEM_IMPACT"]
    assert len(told) >= 2
    assert first is not None
    assert run.transitions(seed_id)[-1].cause in ("max_dwell", "gate:G4_SYSTEM_IMPACT", "reset", "vacate", "embargo")


def test_a_gate_that_cannot_be_measured_is_an_answer_not_a_crash() -> None:
    """A seed that raises while its gate is asked by command is refused; nothing has changed."""
    run = Run()
    seed_id = run.germinate()
    run.step()
    run.apply(Operation.START_TRAINING, seed_id)
    run.steps(8)
    handle = run.seed(seed_id).module.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("odd")))
    assert "odd" in refused("GATE_FAILED", run, Operation.START_GRAFTING, seed_id).message
    handle.remove()
    run.step()
    assert run.stage(seed_id) is Stage.TRAINING
