"""Which kernels a snapshot wants: sites with their offers, and seeds with what they compute."""

from dataclasses import replace

import pytest

from esperd.control.kernel_wishes import KernelWishes, fit_of
from esperd.leyline.kernels import variant_key
from esperd.leyline.views import Snapshot
from esperd.leyline.vocabulary import BlueprintTier, Stage
from tests.integration.control.kernel_stage import BATCH, VARIANT, kernel_snapshot

KEY = variant_key(VARIANT, BATCH)


def with_seed(**changes: object) -> Snapshot:
    snapshot = kernel_snapshot()
    return replace(snapshot, seeds=(replace(snapshot.seeds[0], **changes),))  # type: ignore[arg-type]


def test_sites_and_seeds_of_one_variant_share_a_wish() -> None:
    """One key for two sites and the seed that waits; it has the tier of its offer."""
    needs = KernelWishes().read(kernel_snapshot())
    (wish,) = needs.wishes.values()
    assert (wish.key, wish.fit, wish.hint_batch) == (KEY, fit_of(VARIANT), BATCH)
    assert (wish.tier, wish.waiting_seed_ids, set(wish.sites)) == (BlueprintTier.SAFE, (1,), {"block.1", "block.2"})
    assert needs.of_seeds[1].key == KEY
    assert needs.users == {}


def test_a_seed_with_other_parameters_has_a_wish_of_its_own() -> None:
    """It comes before what nobody waits for."""
    other = replace(VARIANT, parameters={"width": 16.0})
    needs = KernelWishes().read(with_seed(variant=other))
    assert [wish.variant for wish in needs.wishes.values()] == [other, VARIANT]
    assert [wish.waiting_seed_ids for wish in needs.wishes.values()] == [(1,), ()]


@pytest.mark.parametrize("changes", [{"kernel_artifact_id": "ab" * 32}, {"refuses_kernels": True}])
def test_a_seed_that_has_a_kernel_or_wants_none_does_not_wait(changes: dict[str, object]) -> None:
    """Its wish stays known: by it a client's swap is judged."""
    needs = KernelWishes().read(with_seed(**changes))
    assert [wish.waiting_seed_ids for wish in needs.wishes.values()] == [()]
    assert needs.of_seeds[1].key == KEY
    assert needs.users == ({"ab" * 32: (1,)} if "kernel_artifact_id" in changes else {})


@pytest.mark.parametrize("changes", [{"stage": Stage.CULLED}, {"stage": Stage.EMBARGOED}, {"variant": None}])
def test_a_seed_that_computes_nothing_wants_nothing(changes: dict[str, object]) -> None:
    """Only the site's offers are left."""
    needs = KernelWishes().read(with_seed(**changes))
    assert needs.of_seeds == {}
    assert [wish.waiting_seed_ids for wish in needs.wishes.values()] == [()]


def test_before_the_first_step_nothing_is_wanted() -> None:
    """Without a batch size nobody can compile."""
    snapshot = kernel_snapshot()
    sites = tuple(replace(site, batch_size=0) for site in snapshot.sites)
    assert KernelWishes().read(replace(snapshot, sites=sites)).wishes == {}


def test_another_batch_size_is_another_wish() -> None:
    """What was read before is not taken for what is there now."""
    wishes, snapshot = KernelWishes(), kernel_snapshot()
    before = wishes.read(snapshot)
    sites = tuple(replace(site, batch_size=16) for site in snapshot.sites)
    after = wishes.read(replace(snapshot, sites=sites))
    assert set(before.wishes) == {KEY}
    assert set(after.wishes) == {variant_key(VARIANT, 16)}
    assert after.of_seeds[1].hint_batch == 16
    assert wishes.read(snapshot) == before
