"""The daemon itself over the wire: its configuration, log, connections and diagnostics, for those who may."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError
from esper.leyline.v1 import admin_service_pb2 as pb

from esperd.config.fields import describe_settings
from esperd.config.settings import ControlSettings
from esperd.control.supervisor import Reloaded, SettingChange
from esperd.oona.records import AuditQuery
from tests.integration.control.stage import Theatre, eventually, open_stage

METHODS = (
    "config", "reload_config", "set_log_level", "drain", "connections", "diagnostics",
)  # fmt: skip
LOOKS = ("config", "set_log_level", "connections", "diagnostics")
"""What the permission `operate` is enough for."""


@pytest.fixture
async def admin(stage: Theatre) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stage.address, stage.credentials("admin")) as client:
        yield client


async def ask(client: AsyncClient, method: str) -> object:
    """Call a method as its plainest self."""
    arguments = ("debug",) if method == "set_log_level" else ()
    return await getattr(client, method)(*arguments, reason="a test")


async def test_the_configuration_has_every_setting_with_its_origin(admin: AsyncClient) -> None:
    """In the order of the manual, with its words, and whether a reload can change it."""
    answer = await admin.config()
    assert answer.path == "/etc/esperd/esperd.toml"
    assert [one.name for one in answer.settings] == [one.dotted_name for one in describe_settings()]
    found = {one.name: one for one in answer.settings}
    assert found["control.max_streams"] == pb.Setting(
        name="control.max_streams",
        value="256",
        origin="default",
        description="Open streams over all connections.",
        reloadable=True,
    )
    assert found["run.task"].value == '""'
    assert not found["run.task"].reloadable


async def test_a_reload_says_what_it_did(stage: Theatre, admin: AsyncClient) -> None:
    """Applied, what takes a restart, and every error when nothing was applied."""
    change, other = SettingChange("log.level", '"info"', '"debug"'), SettingChange("run.num_steps", "0", "5")
    stage.supervisor.reloads = [Reloaded((change,), (other,)), Reloaded(rejected=("one", "two"))]
    done = await admin.reload_config("a new level")
    assert [(one.name, one.old_value, one.new_value) for one in done.applied] == [("log.level", '"info"', '"debug"')]
    assert [one.name for one in done.restart_required] == ["run.num_steps"]
    assert list(done.rejected) == []
    assert list((await admin.reload_config()).rejected) == ["one", "two"]


async def test_the_log_gets_another_level(stage: Theatre, admin: AsyncClient) -> None:
    """The configuration in force tells of it; a level that there is not is refused."""
    assert (await admin.set_log_level("debug")).previous_level == "info"
    found = {one.name: one for one in (await admin.config()).settings}["log.level"]
    assert (found.value, found.origin) == ('"debug"', "SetLogLevel")
    with pytest.raises(LeylineError) as caught:
        await admin.set_log_level("loud")
    assert caught.value.status == "INVALID_ARGUMENT"
    assert [name for name, _ in caught.value.violations] == ["level"]
    assert stage.supervisor.configuration.settings.log.level == "debug"


async def test_a_drain_is_passed_on_and_answered(stage: Theatre, admin: AsyncClient) -> None:
    """With the time that calls and streams have."""
    assert (await admin.drain("maintenance")).drain_s == 10.0
    assert stage.supervisor.num_drains == 1


async def test_open_streams_are_listed_with_who_signed_on_them(stage: Theatre, admin: AsyncClient) -> None:
    """Oldest first, with their traffic; a stream that nobody signed on has no principal; an ended one is gone."""
    watch = admin.watch_state()
    await anext(watch)
    async with AsyncClient(stage.address, stage.credentials("policy")) as policy:
        async with policy.decision_session(policy_name="p"):
            answer = await admin.connections()
            first, second = answer.streams
            assert first.method == "/esper.leyline.v1.StateService/WatchState"
            assert (first.principal, first.key_id, first.num_received) == ("", "", 0)
            assert first.num_sent >= 1
            assert second.method == "/esper.leyline.v1.PolicyService/DecisionStream"
            assert (second.principal, second.key_id, second.num_received) == ("policy", "policy-1", 1)
            assert second.stream_number > first.stream_number
            assert second.peer == "unix:"
            assert second.open_time.seconds > 1_700_000_000
            assert [peer.peer for peer in answer.peers] == ["unix:"]
            assert answer.peers[0].num_calls >= 4
        await watch.aclose()
    await eventually(lambda: stage.server.parts.connections.num_streams == 0)
    assert len((await admin.connections()).streams) == 0


async def test_a_dump_is_passed_on(admin: AsyncClient) -> None:
    """Its sections, and when it was made."""
    answer = await admin.diagnostics()
    assert [(one.title, one.text) for one in answer.sections] == [("stage", "all is well")]
    assert answer.time.seconds > 1_700_000_000


@pytest.mark.parametrize("method", METHODS)
async def test_what_changes_the_daemon_takes_the_permission_for_it(stage: Theatre, method: str) -> None:
    """`operate` may look and set the level; only `admin` may reload and drain; `observe` nothing of it."""
    async with AsyncClient(stage.address, stage.credentials("operator")) as client:
        if method in LOOKS:
            await ask(client, method)
        else:
            with pytest.raises(LeylineError) as caught:
                await ask(client, method)
            assert caught.value.reason == "PERMISSION_REQUIRED"
    async with AsyncClient(stage.address, stage.credentials("reader")) as client:
        with pytest.raises(LeylineError) as caught:
            await ask(client, method)
        assert caught.value.reason == "PERMISSION_REQUIRED"
    assert stage.supervisor.num_drains == 0


async def test_nothing_of_it_is_answered_over_tcp(directory: Path) -> None:
    """Whatever the key may do: the daemon's insides are for those on its machine."""
    async with open_stage(directory, control=ControlSettings(listen=("127.0.0.1:0",))) as stage:
        async with AsyncClient(stage.address, stage.credentials("admin")) as client:
            for method in METHODS:
                with pytest.raises(LeylineError) as caught:
                    await ask(client, method)
                assert caught.value.reason == "UNIX_SOCKET_ONLY", method
        assert stage.supervisor.num_drains == 0


async def test_every_call_leaves_a_row_in_the_audit_trail(stage: Theatre, admin: AsyncClient) -> None:
    """Also those that only look; with the principal and the key."""
    for method in METHODS:
        await ask(admin, method)
    await stage.server.parts.recorder.flush(5.0)
    rows = [row.entry for row in reversed((await stage.journal.list_audit(AuditQuery())).rows)]
    assert [row.method.rpartition("/")[2] for row in rows] == [
        "GetConfig", "ReloadConfig", "SetLogLevel", "Drain", "ListConnections", "DumpDiagnostics",
    ]  # fmt: skip
    assert {(row.principal, row.key_id, row.decision) for row in rows} == {("admin", "admin-1", "OK")}
