"""A small policy of one's own: grow a seed at the first vacant site when the validation loss has stopped falling.

A process beside the daemon. Run it with a key that has the permission `command`:

    ESPER_KEY=policy.key python policy_in_python.py unix:run/leyline.sock

The daemon advances the seed through its gates by itself (auto_advance), keeps it or removes it; this policy only says
where and when. Copy the file and change `choose`.
"""

import asyncio
import os
import sys

from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.state_pb2 import Site, SystemStatePacket
from esper.leyline.v1.vocabulary_pb2 import LEASE_MODE_STEER, SEED_OPERATION_GERMINATE

PATIENCE_EPOCHS = 3
MIN_IMPROVEMENT = 0.01
"""A loss that falls by less than 1 % in PATIENCE_EPOCHS epochs stands still."""


class Policy:
    """Remembers the validation losses and the sites; decides on each packet."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.sites: dict[str, Site] = {}

    def choose(self, packet: SystemStatePacket) -> list[AdaptationCommand]:
        """The commands for one packet; none means wait."""
        self.sites.update((site.site, site) for site in packet.sites)
        if packet.reason == "epoch_end":
            self.losses.append(packet.validation_loss)
        if not self.stands_still():
            return []
        open_sites = [site for site in self.sites.values() if site.vacant and site.offers]
        site = next((site for site in open_sites if site.embargoed_until_step <= packet.global_step), None)
        if site is None:
            return []
        self.losses.clear()  # Judge the seed on what comes after it.
        cheapest = min(site.offers, key=lambda offer: offer.cost.num_parameters)
        return [
            AdaptationCommand(
                reason=f"the validation loss has stood still for {PATIENCE_EPOCHS} epochs",
                seed_operation=CommandSeedOperation(
                    operation=SEED_OPERATION_GERMINATE,
                    site=site.site,
                    blueprint_id=cheapest.blueprint_id,
                    auto_advance=True,
                ),
            )
        ]

    def stands_still(self) -> bool:
        """Whether the loss has stopped falling."""
        if len(self.losses) <= PATIENCE_EPOCHS:
            return False
        return self.losses[-1] > self.losses[-1 - PATIENCE_EPOCHS] * (1.0 - MIN_IMPROVEMENT)


async def main(address: str, key_file: str) -> None:
    """Steer the run until the daemon drains."""
    policy = Policy()
    async with (
        AsyncClient(address, Credentials.load(key_file)) as client,
        client.decision_session(LEASE_MODE_STEER, "example", "1") as session,
    ):
        async for request in session:
            await session.decide(request.decision_id, policy.choose(request.packet))
            for command in session.take_outcomes():
                print(f"seed {command.seed_id}: {command.error.message or 'done'}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], os.environ["ESPER_KEY"]))
