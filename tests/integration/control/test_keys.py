"""Keys over the wire: what they may do, their list, another ring, and the end of a refused key's streams."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from esper.client import calls
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError, decode_rpc_error
from esper.leyline.v1 import command_pb2, command_service_pb2
from esper.leyline.v1.vocabulary_pb2 import LEASE_MODE_ADVISE, LEASE_MODE_STEER

from esperd.config.settings import ControlSettings
from esperd.leyline.method_policy import MethodPolicy, read_method_policies
from esperd.leyline.private_files import write_private_text
from esperd.leyline.revocations import read_revocations
from esperd.leyline.vocabulary import Permission
from esperd.oona.records import AuditQuery
from tests.integration.control.stage import RING, SECRETS, Theatre, eventually, open_stage, reason_of

PAUSE = command_pb2.AdaptationCommand(run_control=command_pb2.CommandRunControl(action=1))
POLICIES = read_method_policies()


@contextlib.asynccontextmanager
async def client_of(stage: Theatre, who: str, address: str = "") -> AsyncIterator[AsyncClient]:
    """A client that signs with this key of the ring."""
    async with AsyncClient(address or stage.address, stage.credentials(who), timeout_s=10) as client:
        yield client


@pytest.fixture
async def admin(stage: Theatre) -> AsyncIterator[AsyncClient]:
    async with client_of(stage, "admin") as client:
        yield client


@pytest.fixture
async def tcp_stage(directory: Path) -> AsyncIterator[Theatre]:
    """A server on a Unix socket and on a TCP port."""
    listen = (f"unix:{directory}/leyline.sock", "127.0.0.1:0")
    async with open_stage(directory, control=ControlSettings(listen=listen)) as theatre:
        yield theatre


async def end_of(stream: AsyncIterator[Any]) -> LeylineError:
    """Read a stream until it ends; returns the error that ended it."""
    try:
        async with asyncio.timeout(10):
            async for _ in stream:
                pass
    except LeylineError as error:
        return error
    raise AssertionError("it ended without an error")


# What a key may do


@pytest.mark.parametrize(("who", "may"), [("reader", "observe"), ("policy", "command"), ("admin", "admin")])
async def test_access_is_told_per_method(stage: Theatre, who: str, may: str) -> None:
    """Every method of the contract, what it needs and why not; a key that may only observe may ask too."""
    async with client_of(stage, who) as client:
        answer = await client.check_access()
    assert (answer.principal, answer.key_id, answer.key_state) == (who, f"{who}-1", "active")
    assert not answer.HasField("not_after")
    held = {Permission(number) for number in answer.permissions}
    assert Permission[may.upper()] in held
    assert {access.method for access in answer.methods} == set(POLICIES)
    for access in answer.methods:
        needed = POLICIES[access.method].permission
        assert access.permission == needed
        assert access.allowed == (needed is Permission.OBSERVE or needed in held)
        assert access.why_not == ("" if access.allowed else f"lacks {needed.name.lower()}")


async def test_access_over_tcp_leaves_the_unix_socket_out(tcp_stage: Theatre) -> None:
    """What is answered over a Unix socket only is not allowed over TCP, and that is what the answer says."""
    address = tcp_stage.addresses[1]
    method = calls.LIST_KEYS.method
    async with client_of(tcp_stage, "admin") as near, client_of(tcp_stage, "admin", address) as far:
        assert (await near.check_access([method])).methods[0].allowed
        told = (await far.check_access([method])).methods[0]
        assert (told.allowed, told.why_not) == (False, "over a Unix socket only")
        assert await reason_of(far.keys()) == "UNIX_SOCKET_ONLY"


async def test_access_is_what_the_gate_does(stage: Theatre) -> None:
    """For every signed unary method and every key, the call is refused for its permission just as it was foretold."""
    signed = [policy for policy in POLICIES.values() if policy.signed and not _is_session(policy)]
    for who in ("reader", "policy", "operator", "admin"):
        async with client_of(stage, who) as client:
            told = {access.method: access.allowed for access in (await client.check_access()).methods}
        for policy in signed:
            assert told[policy.method] == (await _reason_of_nothing(stage, policy.method, who) != "PERMISSION_REQUIRED")


def _is_session(policy: MethodPolicy) -> bool:
    return policy.method.endswith("Stream")


async def _reason_of_nothing(stage: Theatre, method: str, who: str) -> str:
    """Why a genuine call without content is refused; empty when it is not."""
    request = command_service_pb2.SubmitCommandRequest(envelope=stage.envelope(method, b"", who))
    call = stage.channel.unary_unary(method, request_serializer=lambda message: message.SerializeToString())
    try:
        await call(request)
    except grpc.aio.AioRpcError as error:
        return decode_rpc_error(error, "here").reason
    return ""


async def test_unknown_methods_are_named(stage: Theatre, admin: AsyncClient) -> None:
    """REQUEST_INVALID, with the place of each."""
    with pytest.raises(LeylineError) as caught:
        await admin.check_access([calls.GET_RUN.method, "/esper.leyline.v1.RunService/Grow"])
    assert caught.value.reason == "REQUEST_INVALID"
    assert [field for field, _ in caught.value.violations] == ["methods[1]"]


# The list, and another ring


async def test_the_list_tells_of_use_and_never_of_secrets(stage: Theatre, admin: AsyncClient) -> None:
    """State, window and use of every key, in the order of the ring; no byte of a secret in any form."""
    async with client_of(stage, "policy") as policy, policy.decision_session(LEASE_MODE_STEER, "p", "1"):
        await policy.submit(PAUSE)
        answer = await admin.keys()
    found = {key.key_id: key for key in answer.keys}
    assert list(found) == [f"{name}-1" for name in SECRETS]
    assert (found["policy-1"].num_requests, found["policy-1"].num_streams) == (2, 1)
    assert abs(found["policy-1"].last_used_time.ToSeconds() - time.time()) < 60
    assert (found["rival-1"].num_requests, found["rival-1"].HasField("last_used_time")) == (0, False)
    assert (found["old-1"].state, found["reader-1"].state) == ("revoked", "active")
    told = answer.SerializeToString()
    assert not any(secret in told or secret.hex().encode() in told for secret in SECRETS.values())


async def test_a_reload_takes_another_ring_whole(stage: Theatre, admin: AsyncClient) -> None:
    """New keys sign at once, missing ones do not any more, and the answer names all three kinds of change."""
    ring = RING.replace('id = "rival-1"', 'id = "rival-2"').replace('["observe"]', '["observe", "command"]')
    write_private_text(stage.directory / "keys.toml", ring)
    done = await admin.reload_keys()
    assert (list(done.added_key_ids), list(done.removed_key_ids)) == (["rival-2"], ["rival-1"])
    assert list(done.changed_key_ids) == ["reader-1"]
    async with client_of(stage, "reader") as reader, client_of(stage, "rival") as rival:
        assert (await reader.submit(PAUSE)).command_id
        assert await reason_of(rival.submit(PAUSE)) == "SIGNATURE_INVALID"


async def test_a_bad_ring_changes_nothing(stage: Theatre, admin: AsyncClient) -> None:
    """KEYRING_INVALID names the mistake, shows no secret, and every key goes on as before."""
    write_private_text(stage.directory / "keys.toml", RING.replace('["observe"]', '["root"]'))
    with pytest.raises(LeylineError) as caught:
        await admin.reload_keys()
    assert caught.value.reason == "KEYRING_INVALID"
    assert "'root' is none of observe" in caught.value.message
    assert not any(secret.hex() in str(caught.value.metadata) for secret in SECRETS.values())
    async with client_of(stage, "policy") as policy:
        assert (await policy.submit(PAUSE)).command_id


@pytest.mark.parametrize("who", ["operator", "reader"])
async def test_only_admins_change_keys(stage: Theatre, who: str) -> None:
    """PERMISSION_REQUIRED, and nothing is changed."""
    async with client_of(stage, who) as client:
        assert await reason_of(client.revoke_key("policy-1", "mine")) == "PERMISSION_REQUIRED"
        assert await reason_of(client.reload_keys()) == "PERMISSION_REQUIRED"
    async with client_of(stage, "policy") as policy:
        assert (await policy.submit(PAUSE)).command_id


# Refused keys


async def test_a_revoked_keys_streams_end_at_once(stage: Theatre, admin: AsyncClient) -> None:
    """Sessions and command streams of that key end with KEY_NOT_ACTIVE; those of other keys go on."""
    async with client_of(stage, "policy") as policy, client_of(stage, "rival") as rival:
        async with (
            rival.decision_session(LEASE_MODE_ADVISE, "r", "1") as staying,
            policy.decision_session(LEASE_MODE_STEER, "p", "1") as session,
            policy.command_stream() as stream,
        ):
            await stream.send([PAUSE])
            done = await admin.revoke_key("policy-1", "its laptop was lost")
            assert (done.num_streams_ended, done.key.state, done.key.num_streams) == (2, "revoked", 0)
            assert (await end_of(session)).reason == "KEY_NOT_ACTIVE"
            assert await reason_of(stream.send([PAUSE])) == "KEY_NOT_ACTIVE"
            stage.trainer.packet(1)
            async with asyncio.timeout(10):
                assert (await anext(staying)).decision_id
        assert await reason_of(policy.submit(PAUSE)) == "KEY_NOT_ACTIVE"
    await eventually(lambda: stage.server.parts.connections.num_streams == 0)
    await eventually(lambda: stage.server.parts.recorder.is_idle)  # the trail is written behind the answers
    rows = (await stage.journal.list_audit(AuditQuery(method="RevokeKey"))).rows
    assert [(row.entry.principal, row.entry.decision) for row in rows] == [("admin", "OK")]


async def test_over_tcp_the_whole_connection_ends(tcp_stage: Theatre) -> None:
    """There a peer is one connection, so its unsigned watches end with it; another connection's go on."""
    address = tcp_stage.addresses[1]
    async with (
        client_of(tcp_stage, "admin") as admin,
        client_of(tcp_stage, "policy", address) as policy,
        client_of(tcp_stage, "rival", address) as rival,
    ):
        watch, other = policy.watch_state(reconnect_s=0), rival.watch_state(reconnect_s=0)
        await anext(watch)
        await anext(other)
        async with policy.decision_session(LEASE_MODE_STEER, "p", "1") as session:
            assert (await admin.revoke_key("policy-1", "")).num_streams_ended == 2
            assert (await end_of(session)).reason == "KEY_NOT_ACTIVE"
        assert (await end_of(watch)).reason == "KEY_NOT_ACTIVE"
        tcp_stage.trainer.at_safe_point(tcp_stage.trainer.publish)
        async with asyncio.timeout(10):
            assert await anext(other)
        await other.aclose()  # type: ignore[attr-defined]


async def test_a_revocation_outlives_the_ring_and_the_daemon(directory: Path) -> None:
    """Neither a reload of a ring that has the key nor another start brings it back."""
    async with open_stage(directory) as stage, client_of(stage, "admin") as admin:
        await admin.revoke_key("policy-1", "lost")
        await admin.revoke_key("policy-1", "lost, I said")
        write_private_text(directory / "keys.toml", RING)
        assert list((await admin.reload_keys()).changed_key_ids) == []
        assert await reason_of(admin.revoke_key("nobody-1", "")) == "KEY_UNKNOWN"
    (directory / "journal.db").unlink()
    async with open_stage(directory) as stage, client_of(stage, "policy") as policy:
        assert await reason_of(policy.submit(PAUSE)) == "KEY_NOT_ACTIVE"
    assert [row.reason for row in read_revocations(directory / "revoked-keys.toml")] == ["lost"]


async def test_a_reload_ends_the_streams_of_keys_that_are_gone(stage: Theatre, admin: AsyncClient) -> None:
    """A key that the new ring does not have, or has as revoked, loses its streams."""
    secret = f'secret = "{SECRETS["rival"].hex()}"\n'
    ring = RING.replace('id = "policy-1"', 'id = "policy-2"')
    ring = ring.replace(f'{secret}state = "active"', f'{secret}state = "revoked"')
    async with (
        client_of(stage, "policy") as policy,
        client_of(stage, "rival") as rival,
        policy.decision_session(LEASE_MODE_STEER, "p", "1") as session,
        rival.decision_session(LEASE_MODE_ADVISE, "r", "1") as other,
    ):
        write_private_text(stage.directory / "keys.toml", ring)
        assert (await admin.reload_keys()).num_streams_ended == 2
        ends = [await end_of(session), await end_of(other)]
    assert [error.reason for error in ends] == ["KEY_NOT_ACTIVE"] * 2
    assert [error.metadata["state"] for error in ends] == ["no longer in the key ring", "revoked"]


async def test_a_key_that_expires_loses_its_streams(stage: Theatre, admin: AsyncClient) -> None:
    """At its not_after, by time alone, also when it says nothing more."""
    end = datetime.fromtimestamp(time.time() + 1.5, UTC).isoformat()
    write_private_text(
        stage.directory / "keys.toml",
        RING.replace(
            f'secret = "{SECRETS["policy"].hex()}"', f'secret = "{SECRETS["policy"].hex()}"\nnot_after = {end}'
        ),
    )
    await admin.reload_keys()
    async with client_of(stage, "policy") as policy, policy.decision_session(LEASE_MODE_STEER, "p", "1") as session:
        error = await end_of(session)
    assert (error.reason, error.metadata["state"]) == ("KEY_NOT_ACTIVE", "expired")


async def test_rotation_under_load_without_a_failed_call(stage: Theatre, admin: AsyncClient) -> None:
    """Old and new key sign side by side during the overlap; who has switched does not notice the end of the old one."""
    write_private_text(stage.directory / "keys.toml", RING + _second_policy_key())
    stop = asyncio.Event()
    switch = asyncio.Event()

    async def work() -> int:
        num_done = 0
        while not stop.is_set():
            async with client_of(stage, "successor" if switch.is_set() else "policy") as client:
                for _ in range(10):
                    assert (await client.submit(PAUSE)).command_id
                    num_done += 1
        return num_done

    workers = [asyncio.create_task(work()) for _ in range(4)]
    used = stage.server.parts.connections.use_of
    await eventually(lambda: used("policy-1").num_requests > 100)
    assert list((await admin.reload_keys()).added_key_ids) == ["successor-1"]
    switch.set()
    await eventually(lambda: used("successor-1").num_requests > 100)
    last = used("policy-1").num_requests
    await eventually(lambda: used("successor-1").num_requests > 200)
    assert used("policy-1").num_requests == last
    await admin.revoke_key("policy-1", "rotated")
    await eventually(lambda: used("successor-1").num_requests > 300)
    stop.set()
    assert sum(await asyncio.gather(*workers)) > 400


def _second_policy_key() -> str:
    SECRETS.setdefault("successor", bytes(range(7, 39)))
    return (
        '[[keys]]\nid = "successor-1"\nprincipal = "policy"\npermissions = ["command"]\n'
        f'secret = "{SECRETS["successor"].hex()}"\n'
    )
