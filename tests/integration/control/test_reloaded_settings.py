"""Every setting that a reload may change has its effect in a server that goes on serving."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError
from esper.leyline.v1.vocabulary_pb2 import LEASE_MODE_STEER

from esperd.config.reloadable import RELOADABLE
from tests.integration.control.stage import Theatre, fresh_command, reason_of

Effect = Callable[[Theatre, AsyncClient], Awaitable[None]]
EFFECTS: dict[str, tuple[object, Effect]] = {}
"""By the setting's name: another value, and what shows that it is in force."""
ELSEWHERE = {
    # tests/integration/daemon/test_reload.py and test_administration.py, where there is a whole daemon
    "control.drain_s", "control.tls_certificate", "control.tls_client_ca", "control.tls_private_key",
    "log.format", "log.level",
    # test_kernels.py, where there is a library
    *(name for name in RELOADABLE if name.startswith("kernels.")),
}  # fmt: skip


def effect_of(name: str, value: object) -> Callable[[Effect], Effect]:
    """Mark what shows that a setting has this value."""

    def mark(effect: Effect) -> Effect:
        EFFECTS[name] = (value, effect)
        return effect

    return mark


@effect_of("control.max_streams", 1)
async def _second_stream(stage: Theatre, client: AsyncClient) -> None:
    first, second = client.watch_state(reconnect_s=0.0), client.watch_state(reconnect_s=0.0)
    await anext(first)
    assert await reason_of(anext(second)) == "TOO_MANY_STREAMS"
    await first.aclose()


@effect_of("control.max_reads_per_s", 0.4)
async def _reads(stage: Theatre, client: AsyncClient) -> None:
    assert await last_reason(client.run) == "RATE_LIMITED"


@effect_of("control.max_commands_per_s", 0.4)
async def _commands(stage: Theatre, client: AsyncClient) -> None:
    assert await last_reason(lambda: client.submit(fresh_command(stage, validate_only=True))) == "RATE_LIMITED"


@effect_of("control.max_decisions_per_s", 0.4)
async def _decisions(stage: Theatre, client: AsyncClient) -> None:
    async def open_session() -> None:
        async with client.decision_session(LEASE_MODE_STEER, "p", "1"):
            pass

    assert await last_reason(open_session) == "RATE_LIMITED"


@effect_of("control.max_emergencies_per_s", 0.4)
async def _emergencies(stage: Theatre, client: AsyncClient) -> None:
    assert await last_reason(lambda: client.raise_emergency(1, "smoke")) == "RATE_LIMITED"


@effect_of("control.max_admin_per_s", 0.4)
async def _admin(stage: Theatre, client: AsyncClient) -> None:
    assert await last_reason(client.config) == "RATE_LIMITED"


@effect_of("control.training_share", 0.5)
async def _share(stage: Theatre, client: AsyncClient) -> None:
    assert (stage.server.parts.pacer._share, stage.server.parts.urgent_pacer._share) == (0.5, 0.1)


@effect_of("control.max_concurrent_calls", 3)
async def _waiting(stage: Theatre, client: AsyncClient) -> None:
    assert (stage.server.parts.pacer._max_waiting, stage.server.parts.urgent_pacer._max_waiting) == (3, 3)


@effect_of("budgets.policy_answer_s", 900.0)
async def _deadline(stage: Theatre, client: AsyncClient) -> None:
    async with client.decision_session(LEASE_MODE_STEER, "p", "1") as session:
        stage.trainer.packet(1)
        request = await anext(session)
        assert 800.0 < request.deadline.seconds - time.time() < 901.0


@effect_of("budgets.missed_deadlines", 7)
async def _patience(stage: Theatre, client: AsyncClient) -> None:
    assert stage.server.parts.sessions._table.max_missed == 7


def test_the_table_is_covered() -> None:
    """A setting that becomes reloadable gets a test here."""
    assert set(EFFECTS) | ELSEWHERE == RELOADABLE
    assert not set(EFFECTS) & ELSEWHERE


@pytest.mark.parametrize("name", sorted(EFFECTS))
async def test_its_effect(stage: Theatre, name: str) -> None:
    """Prepared nothing has changed; swapped it is in force, for calls that come on connections that are open."""
    value, effect = EFFECTS[name]
    section, _, key = name.partition(".")
    before = stage.server.parts.settings
    wanted = replace(before, **{section: replace(getattr(before, section), **{key: value})})
    # The client tries again within its time; what is refused for longer than that is told at once.
    async with AsyncClient(stage.address, stage.credentials("operator"), timeout_s=1.0) as client:
        await client.config()
        swap = stage.server.prepare(wanted)
        assert stage.server.parts.settings is before
        swap()
        await effect(stage, client)


async def last_reason(call: Callable[[], Awaitable[Any]], num_calls: int = 6) -> str:
    """Why one of several calls in a row was refused."""
    try:
        for _ in range(num_calls):
            await call()
    except LeylineError as error:
        return error.reason
    return "none was refused"
