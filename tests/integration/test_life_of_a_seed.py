"""A seed's whole life in a real daemon, moved by signed commands, with the evidence of every gate on record.

One run, one site: a first seed is culled while it trains and its site becomes DORMANT again; a second one goes to
FOSSILIZED. The host's weights at every step are compared with those of the plain loop without any daemon.
"""

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError
from esper.leyline.v1.command_pb2 import COMMAND_TYPE_SEED, AdaptationCommand, Command, CommandSeedOperation
from esper.leyline.v1.state_service_pb2 import GetSeedResponse
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_APPLIED,
    COMMAND_STATE_REJECTED,
    SEED_OPERATION_CULL,
    SEED_OPERATION_EVALUATE,
    SEED_OPERATION_FOSSILIZE,
    SEED_OPERATION_GERMINATE,
    SEED_OPERATION_STABILIZE,
    SEED_OPERATION_START_GRAFTING,
    SEED_OPERATION_START_TRAINING,
    TRAINER_PHASE_TRAINING,
    SeedLifecycleStage,
    SeedOperation,
)

from tests.integration import recorded
from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import until_phase
from tests.integration.trajectory import RECORDED, lay_out_recorded_task, recorded_lines

LIFE_S = 60.0
NOT_YET = {"SEED_DWELL", "GATE_UNMEASURED", "GATE_FAILED", "SITE_EMBARGOED"}
"""Refusals after which the same command may succeed later: the seed goes on learning or being measured."""
GROWTH = (
    *RECORDED,
    "growth.min_training_steps=60",
    "growth.alpha_steps=20",
    "growth.seed_warmup_steps=10",
    "growth.embargo_steps=20",
    "growth.probe_budget=1.0",
    "growth.max_parameter_ratio=1000.0",
    "growth.max_seed_flops_ratio=1000.0",
    "growth.max_step_time_ratio=1000000.0",
)
ADVANCING = (
    SEED_OPERATION_START_TRAINING,
    SEED_OPERATION_START_GRAFTING,
    SEED_OPERATION_STABILIZE,
    SEED_OPERATION_EVALUATE,
    SEED_OPERATION_FOSSILIZE,
)


async def test_a_cull_and_a_graft_by_signed_commands_with_every_gate_on_record(
    start_daemon: StartDaemon, folder: Path
) -> None:
    """DORMANT to DORMANT by a cull, DORMANT to FOSSILIZED by hand; gates G0 to G5 can be read afterwards."""
    lay_out_recorded_task(folder)
    daemon = start_daemon(*GROWTH, task="recorded:build")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        num_host_parameters = (await client.run()).run.num_host_parameters

        culled = (await ask(client, SEED_OPERATION_GERMINATE)).seed_id
        await ask(client, SEED_OPERATION_START_TRAINING, culled)
        assert [group.owner for group in (await client.optimizers()).groups] == ["host", f"seed:{culled}"]
        await ask(client, SEED_OPERATION_CULL, culled)
        assert [group.owner for group in (await client.optimizers()).groups] == ["host"]
        gone = await until_last_stage(client, culled, "DORMANT")
        assert stages(gone) == ["GERMINATED", "TRAINING", "CULLED", "EMBARGOED", "RESETTING", "DORMANT"]
        site = (await client.sites()).sites[0]
        assert (site.vacant, list(site.live_seed_ids), site.num_fossils) == (True, [], 0)

        grown, first_graft_step = await grow_to_a_fossil(client)
        kept = await until_last_stage(client, grown, "FOSSILIZED")
        assert stages(kept) == ["GERMINATED", "TRAINING", "BLENDING", "SHADOWING", "PROBATIONARY", "FOSSILIZED"]
        assert kept.seed.alpha == 1.0

        run = (await client.run()).run
        assert run.num_host_parameters == num_host_parameters
        assert run.num_grown_parameters == kept.seed.cost.num_parameters
        groups = (await client.optimizers()).groups
        assert {group.owner for group in groups} == {"host"}
        assert sum(group.num_parameters for group in groups) == num_host_parameters + run.num_grown_parameters
        site = (await client.sites()).sites[0]
        assert (site.vacant, site.num_fossils) == (True, 1)
    daemon.stop()

    for story in (gone, kept):
        assert_evidence(story)
    assert journalled_transitions(folder, culled) == told_transitions(gone)
    assert journalled_transitions(folder, grown) == told_transitions(kept)
    assert_each_command_has_one_outcome(folder)
    assert_host_was_undisturbed_before(folder, first_graft_step)


async def grow_to_a_fossil(client: AsyncClient) -> tuple[str, int]:
    """Seeds, moved by hand, until one is kept: its id, and the step of the first graft of all.

    When each command arrives is chance, and the guard may honestly cull a seed that does not help just then.
    """
    first_graft_step = 0
    while True:
        seed_id = (await ask(client, SEED_OPERATION_GERMINATE)).seed_id
        try:
            for operation in ADVANCING:
                await ask(client, operation, seed_id)
        except CulledError:
            await until_last_stage(client, seed_id, "DORMANT")
        story = await client.seed(seed_id)
        if "BLENDING" in stages(story):
            first_graft_step = first_graft_step or step_of(story, "BLENDING")
        if stages(story)[-1] == "FOSSILIZED":
            return seed_id, first_graft_step


class CulledError(Exception):
    """The seed was culled by a gate or the guard."""


async def ask(client: AsyncClient, operation: SeedOperation, seed_id: str = "") -> Command:
    """Ask by a signed command until it is applied; refusals that time cures are asked again."""
    seed_operation = CommandSeedOperation(operation=operation)
    if operation == SEED_OPERATION_GERMINATE:
        seed_operation.site, seed_operation.blueprint_id = recorded.SITE, "residual_mlp"
    command = AdaptationCommand(
        command_type=COMMAND_TYPE_SEED, target_seed_id=seed_id, reason="a test", seed_operation=seed_operation
    )
    deadline_s = time.monotonic() + LIFE_S
    while True:
        try:
            answer = await client.submit(command, wait=True)
            reason = answer.error.reason
        except LeylineError as error:
            answer, reason = None, error.reason
        if answer is not None and answer.state == COMMAND_STATE_APPLIED:
            return answer
        assert answer is None or answer.state == COMMAND_STATE_REJECTED
        if seed_id and "CULLED" in stages(await client.seed(seed_id)):
            raise CulledError(reason)
        assert reason in NOT_YET, (SeedOperation.Name(operation), reason, answer)
        assert time.monotonic() < deadline_s, (SeedOperation.Name(operation), reason)
        await asyncio.sleep(0.02)


async def until_last_stage(client: AsyncClient, seed_id: str, stage: str) -> GetSeedResponse:
    """Look until the seed's last transition has led to this stage."""
    deadline_s = time.monotonic() + LIFE_S
    while True:
        answer = await client.seed(seed_id)
        if stages(answer)[-1] == stage:
            return answer
        assert time.monotonic() < deadline_s, stages(answer)
        await asyncio.sleep(0.02)


def name(stage: int) -> str:
    return SeedLifecycleStage.Name(stage).removeprefix("SEED_STAGE_")  # type: ignore[arg-type]  # a number of the enum


def stages(answer: GetSeedResponse) -> list[str]:
    """Where its transitions led, in order."""
    return [name(transition.target) for transition in answer.transitions]


def step_of(answer: GetSeedResponse, stage: str) -> int:
    """The step at which it got there."""
    return next(transition.global_step for transition in answer.transitions if name(transition.target) == stage)


GATE_BEFORE = {
    "GERMINATED": (1, ""),
    "TRAINING": (2, ""),
    "BLENDING": (3, ""),
    "SHADOWING": (4, ""),
    "PROBATIONARY": (5, ""),
    "FOSSILIZED": (5, "commit"),
    "DORMANT": (6, ""),
}
"""Number of the gate (G0 is 1) and its purpose, by the stage that it guards."""


def assert_evidence(answer: GetSeedResponse) -> None:
    """Every guarded stage was entered past its own gate, which passed at that very step with all its evidence."""
    before = "DORMANT"
    for transition in answer.transitions:
        target = name(transition.target)
        assert name(transition.source) == before
        before = target
        if target not in GATE_BEFORE:
            assert not transition.HasField("gate"), target
            continue
        gate = transition.gate
        assert (gate.gate, gate.purpose) == GATE_BEFORE[target]
        assert gate.verdict == 1, target
        assert gate.global_step == transition.global_step
        assert gate.evidence
        assert all(item.passed for item in gate.evidence), target
        assert all(item.name and item.sense for item in gate.evidence)


def told_transitions(answer: GetSeedResponse) -> list[tuple[str, str, int, str, list[tuple[str, float, bool]]]]:
    """What GetSeed tells of each transition."""
    return [
        (
            name(transition.source),
            name(transition.target),
            transition.global_step,
            transition.cause,
            [(item.name, item.value, item.passed) for item in transition.gate.evidence],
        )
        for transition in answer.transitions
    ]


def journal(folder: Path) -> sqlite3.Connection:
    """The run's journal, read from its file without any code of ours."""
    return sqlite3.connect(f"{(folder / 'run' / 'journal.sqlite').as_uri()}?mode=ro", uri=True)


def journalled_transitions(folder: Path, seed_id: str) -> list[Any]:
    """The same, from the file."""
    db = journal(folder)
    try:
        rows = db.execute(
            "SELECT body FROM history WHERE seed_id = ? AND kind = 'transition' ORDER BY revision", (int(seed_id),)
        ).fetchall()
    finally:
        db.close()
    bodies = [json.loads(body) for (body,) in rows]
    return [
        (
            body["source"],
            body["target"],
            body["global_step"],
            body["cause"],
            [(item["name"], item["value"], item["passed"]) for item in (body["gate"] or {"evidence": []})["evidence"]],
        )
        for body in bodies
    ]


def assert_each_command_has_one_outcome(folder: Path) -> None:
    """Whatever was accepted was settled, once."""
    db = journal(folder)
    try:
        (accepted,) = db.execute("SELECT count(*) FROM command").fetchone()
        (settled,) = db.execute("SELECT count(DISTINCT command_id) FROM outcome").fetchone()
        (rows,) = db.execute("SELECT count(*) FROM outcome").fetchone()
    finally:
        db.close()
    assert accepted == settled == rows
    assert accepted >= 9


def assert_host_was_undisturbed_before(folder: Path, step: int) -> None:
    """Up to the graft every step's weights, buffers and loss are those of the plain loop."""
    lines = recorded_lines(folder)
    assert lines[:step] == recorded.bare_trajectory(step)
    assert len(lines) > step
