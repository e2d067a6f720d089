"""The SDK against this server: what a policy author's program does."""

import asyncio

from esper.client.aio import AsyncClient
from esper.leyline.v1 import command_pb2
from esper.leyline.v1.vocabulary_pb2 import LEASE_MODE_STEER

from tests.integration.control.stage import Theatre

GERMINATE = command_pb2.CommandSeedOperation(operation=1, blueprint_id="bottleneck", site="block.1")


async def test_submit_watch_stream_and_decide(stage: Theatre) -> None:
    """One program that does all of it."""
    async with AsyncClient(stage.address, stage.credentials("operator")) as client:
        assert (await client.run()).run.run_id == "run-1"
        done = await client.submit(command_pb2.AdaptationCommand(seed_operation=GERMINATE), wait=True, timeout_s=10)
        assert (done.state, done.seed_id) == (2, "2")
        assert len((await client.seeds()).seeds) == 2
        pause = command_pb2.AdaptationCommand(run_control=command_pb2.CommandRunControl(action=1))
        async with client.command_stream() as stream:
            receipts = await stream.send([pause for _ in range(10)])
        assert [receipt.state for receipt in receipts] == [1] * 10
        async with client.decision_session(LEASE_MODE_STEER, "mine", "1") as session:
            stage.trainer.packet(1)
            async with asyncio.timeout(10):
                async for request in session:
                    receipt = await session.decide(
                        request.decision_id, [command_pb2.AdaptationCommand(seed_operation=GERMINATE)], "why not"
                    )
                    assert not receipt.HasField("error")
                    break
                while not (outcomes := session.take_outcomes()):
                    await asyncio.sleep(0.01)
        assert outcomes[0].state == 2
