"""The example policy: short, and right about when to grow."""

from pathlib import Path

from esper.leyline.v1.state_pb2 import BlueprintOffer, Cost, Site, SystemStatePacket

from esperd.examples import policy_in_python
from esperd.examples.policy_in_python import Policy


def packet(loss: float, *sites: Site, reason: str = "epoch_end") -> SystemStatePacket:
    """A state packet."""
    return SystemStatePacket(validation_loss=loss, sites=sites, reason=reason)


def site(name: str, vacant: bool) -> Site:
    """A site that admits two blueprints."""
    offers = [
        BlueprintOffer(blueprint_id="large", cost=Cost(num_parameters=100)),
        BlueprintOffer(blueprint_id="small", cost=Cost(num_parameters=10)),
    ]
    return Site(site=name, vacant=vacant, offers=offers)


def test_example_is_short() -> None:
    """Under 80 lines, so that it can be read at a sitting."""
    assert len(Path(policy_in_python.__file__).read_text().splitlines()) < 80


def test_grows_once_at_the_first_vacant_site_when_the_loss_stands_still() -> None:
    """A falling loss is left alone; a plateau brings one seed, and then patience begins anew."""
    policy = Policy()
    sites = [site("taken", vacant=False), site("free", vacant=True)]
    assert policy.choose(packet(1.0, *sites)) == []
    assert [policy.choose(packet(loss)) for loss in (0.9, 0.8, 0.7)] == [[], [], []]
    assert policy.choose(packet(9.0, reason="interval")) == []
    chosen = [policy.choose(packet(0.699)) for _ in range(6)]
    (command,) = [command for commands in chosen for command in commands]
    assert command.seed_operation.site == "free"
    assert command.seed_operation.blueprint_id == "small"
    assert command.seed_operation.auto_advance
    assert command.reason


def test_waits_when_nothing_may_grow() -> None:
    """A plateau is waited out while every site is taken or embargoed."""
    policy = Policy()
    embargoed = site("embargoed", vacant=True)
    embargoed.embargoed_until_step = 100
    assert [policy.choose(packet(1.0, site("taken", vacant=False), embargoed)) for _ in range(9)] == [[]] * 9
