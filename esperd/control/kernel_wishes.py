"""Which kernels a run could use: every site with what may germinate there, and every seed that computes something.

Event loop only; pure but for its memory: most snapshots offer what the last one did, and a wish's name is a digest. A
wish is a variant at the batch size of its site; seeds of the same variant share it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from esperd.leyline.kernels import KernelVariant, variant_key
from esperd.leyline.views import BlueprintOffer, SeedView, SiteView, Snapshot
from esperd.leyline.vocabulary import BlueprintTier, Stage

_COMPUTES = (
    Stage.GERMINATED,
    Stage.TRAINING,
    Stage.BLENDING,
    Stage.SHADOWING,
    Stage.PROBATIONARY,
    Stage.FOSSILIZED,
)
"""Stages in which a seed computes, or is about to."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A kernel that somebody could use."""

    key: str
    """See `variant_key`."""
    fit: str
    """The same without the batch size: kernels of any hint are compared by it."""
    variant: KernelVariant
    hint_batch: int
    tier: BlueprintTier
    sites: tuple[str, ...] = ()
    waiting_seed_ids: tuple[int, ...] = ()
    """Seeds that run eager for want of it."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the newest snapshot says of kernels."""

    wishes: Mapping[str, Wish] = field(default_factory=dict)
    """By key; those of seeds that wait come first."""
    of_seeds: Mapping[int, Wish] = field(default_factory=dict)
    """The wish of each seed that computes something, whether it waits or not."""
    users: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The seeds that run each kernel, by artifact id."""


def fit_of(variant: KernelVariant) -> str:
    """The name of a variant whatever its batch size: kernels fit exactly where this is equal."""
    return variant_key(variant, 0)


class KernelWishes:
    """Reads what is wanted out of snapshots."""

    def __init__(self) -> None:
        self._of_sites: dict[str, tuple[SiteView, tuple[Wish, ...]]] = {}
        self._of_seeds: dict[int, tuple[KernelVariant, int, Wish]] = {}

    def read(self, snapshot: Snapshot) -> Needs:
        """What this snapshot wants."""
        sites = {site.site: site for site in snapshot.sites}
        seeds = [seed for seed in snapshot.seeds if _computes(seed)]
        computing = {seed.seed_id for seed in seeds}
        self._of_seeds = {number: known for number, known in self._of_seeds.items() if number in computing}
        of_seeds = {seed.seed_id: wish for seed in seeds for wish in self._seed_wish(seed, sites.get(seed.site))}
        found: dict[str, Wish] = {}
        for seed in seeds:
            wish = of_seeds.get(seed.seed_id)
            if wish is not None:
                waits = not (seed.kernel_artifact_id or seed.refuses_kernels)
                _add(found, replace(wish, waiting_seed_ids=(seed.seed_id,) if waits else ()))
        for site in snapshot.sites:
            for wish in self._site_wishes(site):
                _add(found, wish)
        ranked = sorted(found.values(), key=lambda wish: -len(wish.waiting_seed_ids))
        return Needs({wish.key: wish for wish in ranked}, of_seeds, _users(seeds))

    def _site_wishes(self, site: SiteView) -> tuple[Wish, ...]:
        known = self._of_sites.get(site.site)
        if known is not None and _offers_the_same(known[0], site):
            return known[1]
        wishes = tuple(_offered(site))
        self._of_sites[site.site] = (site, wishes)
        return wishes

    def _seed_wish(self, seed: SeedView, site: SiteView | None) -> Iterator[Wish]:
        if site is None or not site.batch_size or seed.variant is None:
            return
        known = self._of_seeds.get(seed.seed_id)
        if known is None or known[1] != site.batch_size or known[0] != seed.variant:
            tiers = {offer.blueprint_id: offer.tier for offer in site.offers}
            wish = _wish(seed.variant, site, tiers.get(seed.blueprint_id, BlueprintTier.UNSPECIFIED))
            known = self._of_seeds[seed.seed_id] = (seed.variant, site.batch_size, wish)
        yield known[2]


def _computes(seed: SeedView) -> bool:
    """Whether a seed has a module that a kernel could stand in for."""
    return seed.variant is not None and seed.stage in _COMPUTES


def _offered(site: SiteView) -> Iterator[Wish]:
    if site.batch_size:
        for offer in site.offers:
            if offer.variant is not None:
                yield _wish(offer.variant, site, offer.tier)


def _wish(variant: KernelVariant, site: SiteView, tier: BlueprintTier) -> Wish:
    key = variant_key(variant, site.batch_size)
    return Wish(key, fit_of(variant), variant, site.batch_size, tier, (site.site,))


def _offers_the_same(before: SiteView, now: SiteView) -> bool:
    if before.batch_size != now.batch_size:
        return False
    return before.offers is now.offers or _variants(before.offers) == _variants(now.offers)


def _variants(offers: tuple[BlueprintOffer, ...]) -> list[tuple[KernelVariant | None, BlueprintTier]]:
    return [(offer.variant, offer.tier) for offer in offers]


def _add(found: dict[str, Wish], wish: Wish) -> None:
    known = found.get(wish.key)
    if known is None:
        found[wish.key] = wish
        return
    sites = known.sites + tuple(site for site in wish.sites if site not in known.sites)
    found[wish.key] = replace(known, sites=sites, waiting_seed_ids=known.waiting_seed_ids + wish.waiting_seed_ids)


def _users(seeds: list[SeedView]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for seed in seeds:
        if seed.kernel_artifact_id:
            found[seed.kernel_artifact_id] = (*found.get(seed.kernel_artifact_id, ()), seed.seed_id)
    return found
