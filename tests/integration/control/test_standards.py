"""The standard services: health with List, reflection in both versions; and who the daemon is."""

from typing import Any

import grpc
import grpc.aio
import pytest
from esper.leyline.v1 import run_service_pb2, server_service_pb2
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub
from esper.leyline.v1.server_service_pb2_grpc import ServerServiceStub
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from esperd.control.health import HealthService
from esperd.leyline.method_policy import services
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.records import RunFinished, RunStarted
from tests.integration.control.stage import Theatre


async def test_health_of_services_and_conditions(stage: Theatre) -> None:
    """Each service and each condition by its name; any other is NOT_FOUND."""
    stub = health_pb2_grpc.HealthStub(stage.channel)
    for name in ("", "esper.leyline.v1.CommandService", "trainer", "journal", "keys"):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_list(stage: Theatre) -> None:
    """All at once."""
    messages = HealthService(stage.server.parts.conditions, [])._messages
    call = stage.channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=messages["HealthListRequest"].SerializeToString,
        response_deserializer=messages["HealthListResponse"].FromString,
    )
    statuses = (await call(messages["HealthListRequest"]())).statuses
    assert {"", "trainer", "journal", "keys", "esper.leyline.v1.RunService"} <= set(statuses)


async def test_health_watch_ends_with_the_drain(stage: Theatre) -> None:
    """SERVING, then NOT_SERVING as soon as the daemon drains."""
    call = health_pb2_grpc.HealthStub(stage.channel).Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await call.read()).status == 1
    await stage.server.drain_and_stop(2.0)
    assert (await call.read()).status == 2
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(stage: Theatre, version: str) -> None:
    """Every service is listed, and its file comes with all that it imports."""
    call = stage.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()

    async def ask(**question: Any) -> Any:
        await call.write(reflection_pb2.ServerReflectionRequest(**question))
        return await call.read()

    listed = (await ask(list_services="")).list_services_response.service
    names = {service.name for service in listed}
    assert {
        "esper.leyline.v1.PolicyService",
        "grpc.health.v1.Health",
        f"grpc.reflection.{version}.ServerReflection",
    } <= names
    for name in names:
        answer = await ask(file_containing_symbol=name)
        if "reflection.v1." not in name:
            files = [
                descriptor_pb2.FileDescriptorProto.FromString(data)
                for data in answer.file_descriptor_response.file_descriptor_proto
            ]
            found = {file.name for file in files}
            assert all(imported in found for file in files for imported in file.dependency)
    assert (await ask(file_containing_symbol="no.such")).error_response.error_code == 5
    await call.done_writing()


async def test_server_info(stage: Theatre) -> None:
    """What a signer needs first."""
    info = await ServerServiceStub(stage.channel).GetServerInfo(server_service_pb2.GetServerInfoRequest())
    assert (info.server_id, info.epoch, info.run_id) == ("esperd-test", stage.identity.epoch, "run-1")
    assert info.limits["max_payload_bytes"] == 1 << 20


async def test_runs(stage: Theatre) -> None:
    """The current run in full, those before it from the journal, an unknown one NOT_FOUND; pages go on."""
    await stage.journal.append(RunStarted("run-0", "digits", 1.7e9))
    await stage.journal.append(RunFinished("run-0", TrainerPhase.FAILED, 42, 1.7e9, "out of memory"))
    stub = RunServiceStub(stage.channel)
    first = await stub.ListRuns(run_service_pb2.ListRunsRequest(page_size=1))
    second = await stub.ListRuns(run_service_pb2.ListRunsRequest(page_size=1, page_token=first.next_page_token))
    assert [run.run_id for run in (*first.runs, *second.runs)] == ["run-1", "run-0"]
    assert second.next_page_token == ""
    old = (await stub.GetRun(run_service_pb2.GetRunRequest(run_id="run-0"))).run
    assert (old.global_step, old.failure) == (42, "out of memory")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetRun(run_service_pb2.GetRunRequest(run_id="run-9"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_stop_run(stage: Theatre) -> None:
    """An operator ends the run: a command like any other."""
    payload = run_service_pb2.StopRunPayload(request_id="stop", reason="enough").SerializeToString()
    envelope = stage.envelope("/esper.leyline.v1.RunService/StopRun", payload)
    answer = await RunServiceStub(stage.channel).StopRun(run_service_pb2.StopRunRequest(envelope=envelope))
    assert (answer.command.state, answer.command.request.run_control.action) == (1, 3)
    assert answer.command.request.reason == "enough"


async def test_every_method_of_the_contract_is_served(stage: Theatre) -> None:
    """None is missing and none has the wrong shape; over the wire every unary one answers or says what is wrong."""
    methods = {f"/{service.full_name}/{method.name}": method for service in services() for method in service.methods}
    served = stage.server.parts.entrance._handlers
    assert set(methods) <= set(served)
    for name, method in methods.items():
        shape = (served[name].request_streaming, served[name].response_streaming)
        assert shape == (method.client_streaming, method.server_streaming), name
        if not any(shape):
            call = stage.channel.unary_unary(name)(b"")
            assert await call.code() is not grpc.StatusCode.UNIMPLEMENTED, name


async def test_a_method_that_is_not_there_is_unimplemented(stage: Theatre) -> None:
    """So that a client of a newer contract can tell."""
    call = stage.channel.unary_unary("/esper.leyline.v1.RunService/SingRun")(b"")
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
