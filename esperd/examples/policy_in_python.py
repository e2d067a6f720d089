"""A policy in Python: grows a seed at the first vacant site when the validation loss has stopped falling.

    python policy_in_python.py ADDRESS KEY_FILE [NAME]

It writes a checkpoint, shows the seeds and steers until the daemon drains, whatever breaks. Copy it, change `choose`.
"""

import asyncio
import contextlib
import sys

from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import Unreachable
from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.state_pb2 import Site, SystemStatePacket
from esper.leyline.v1.vocabulary_pb2 import SEED_OPERATION_GERMINATE, CommandState, LeaseMode, SeedLifecycleStage


class Policy:
    """Remembers the validation losses and the sites; decides on each packet."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.sites: dict[str, Site] = {}

    def choose(self, packet: SystemStatePacket) -> list[AdaptationCommand]:
        """The commands for one packet; none means wait."""
        self.sites.update((site.site, site) for site in packet.sites)  # only those that changed are sent
        if packet.reason == "epoch_end":
            self.losses.append(packet.validation_loss)
        recent = self.losses[-4:]  # the loss stands still when it falls by less than 1 % in three epochs
        vacant = [site for site in self.sites.values() if site.vacant and site.offers]
        site = next((site for site in vacant if site.embargoed_until_step <= packet.global_step), None)
        if site is None or len(recent) < 4 or recent[-1] <= 0.99 * recent[0]:
            return []
        self.losses.clear()  # judge the seed on what comes after it
        seed = CommandSeedOperation(operation=SEED_OPERATION_GERMINATE, site=site.site, auto_advance=True)
        seed.blueprint_id = min(site.offers, key=lambda offer: offer.cost.num_parameters).blueprint_id
        print("asked", seed.site, seed.blueprint_id, flush=True)
        return [AdaptationCommand(reason="the validation loss stands still", seed_operation=seed)]


async def watch(client: AsyncClient) -> None:
    """Show the stages of the seeds; after a cut the client resumes where it was."""
    stages: dict[str, int] = {}
    async for message in client.watch_state():
        if message.HasField("snapshot"):
            print("snapshot", flush=True)
        for seed in message.snapshot.seeds or message.delta.seeds:
            if stages.get(seed.seed_id) != seed.stage:
                print("seed", seed.seed_id, SeedLifecycleStage.Name(seed.stage), flush=True)
            stages[seed.seed_id] = seed.stage


async def steer(client: AsyncClient, policy: Policy, name: str) -> None:
    """Hold the lease and answer each packet until the daemon drains; a session that breaks is opened anew."""
    while True:
        with contextlib.suppress(Unreachable):
            async with client.decision_session(policy_name=name, policy_version="1") as session:
                print("session", LeaseMode.Name(session.opened.mode), flush=True)
                async for request in session:
                    await session.decide(request.decision_id, policy.choose(request.packet))
                    for done in session.take_outcomes():
                        print("outcome", CommandState.Name(done.state), done.seed_id, done.error.reason, flush=True)
                return


async def main(address: str, key_file: str, name: str = "example") -> None:
    """Write a checkpoint, then steer and watch."""
    async with AsyncClient(address, Credentials.load(key_file), timeout_s=30) as client:
        print("checkpoint", CommandState.Name((await client.checkpoint(reason="a policy begins")).state), flush=True)
        watching = asyncio.create_task(watch(client))
        await steer(client, Policy(), name)
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
