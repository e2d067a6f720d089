"""Every kernel that clients see: the run's wishes joined with what the library holds, and the feed of what changes.

Event loop only. Three things are told to it: the newest snapshot, what the library says of an artifact, and what
compilers report; it makes one row of each kernel, and tells watchers of those rows that are not what they were.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace

from esper.leyline.v1 import kernel_service_pb2

from esperd.control.command_board import feed_epoch
from esperd.control.kernel_rows import KernelRow, artifact_row, kernel_message, rank
from esperd.control.kernel_wishes import KernelWishes, Needs, Wish, fit_of
from esperd.control.wire_bytes import submessage
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import SeedView, SiteView, Snapshot
from esperd.leyline.vocabulary import BlueprintTier, HandlingClass, KernelState
from esperd.oona.feed import Feed
from esperd.oona.feed_values import FeedItem, FeedPolicy
from esperd.oona.subscription import Subscription
from esperd.urza.stored import CompilationReport, StoredKernel

MAX_WAITING = 16_384
"""Kernels of which a change may wait for one watcher."""
MAX_REMEMBERED = 1_024
"""Nobody resumes a watch of kernels: it begins with every kernel."""
FORGOTTEN_S = 1800.0
"""After which nobody believes any more that a compiler works on a wish."""
_KERNELS_FIELD = kernel_service_pb2.WatchKernelsResponse.KERNELS_FIELD_NUMBER
_ON_ITS_WAY = frozenset({KernelState.UPLOADING, KernelState.VALIDATING, KernelState.OFFERED})
"""A wish for which there is such a kernel is no wish any more."""


class KernelBoard:
    """The rows, and who watches them."""

    def __init__(self, epoch: bytes, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wishes = KernelWishes()
        self._seen: tuple[tuple[SeedView, ...], tuple[SiteView, ...]] | None = None
        self.needs = Needs()
        self._artifacts: dict[str, KernelRow] = {}
        """As the library knows them, without what the run adds."""
        self._fits: dict[str, str] = {}
        self._of_fit: dict[str, list[str]] = {}
        """Artifacts by what they fit: most wishes are looked up at every state of the run."""
        self._compilations: dict[str, CompilationReport] = {}
        self._resident: dict[str, int] = {}
        self._wishes_of: dict[str, list[Wish]] = {}
        self._wanted_since_s: dict[str, float] = {}
        self._rows: dict[str, KernelRow] = {}
        self._bytes: dict[str, bytes] = {}
        self.feed: Feed[KernelState] = Feed(feed_epoch(epoch, "kernels"), max_items=MAX_REMEMBERED)

    # What is told to it

    def look(self, snapshot: Snapshot) -> bool:
        """Take in the newest snapshot; returns whether what it wants of kernels may have changed."""
        seen = (snapshot.seeds, snapshot.sites)
        if seen == self._seen:
            return False
        self._seen = seen
        needs = self._wishes.read(snapshot)
        if needs == self.needs:
            return False
        self.needs = needs
        self._refresh()
        return True

    def put(self, *kernels: StoredKernel) -> None:
        """Take in what the library says of kernels."""
        for kernel in kernels:
            self._artifacts[kernel.artifact_id] = artifact_row(kernel)
            if kernel.artifact_id not in self._fits:
                fit = self._fits[kernel.artifact_id] = fit_of(kernel.manifest.variant)
                self._of_fit.setdefault(fit, []).append(kernel.artifact_id)
        self._refresh()

    def keep(self, known: Container[str], compilations: Container[str]) -> None:
        """Forget the artifacts, and what compilers said, that the library has forgotten."""
        self._compilations = {key: told for key, told in self._compilations.items() if key in compilations}
        gone = [artifact_id for artifact_id in self._artifacts if artifact_id not in known]
        for artifact_id in gone:
            self._of_fit[self._fits.pop(artifact_id)].remove(artifact_id)
            del self._artifacts[artifact_id]
        if gone:
            self._refresh()

    def compiles(self, *reports: CompilationReport) -> None:
        """Take in what compilers say of wishes."""
        self._compilations.update({report.variant_key: report for report in reports})
        self._refresh()

    def tick(self) -> None:
        """Let time pass: a compiler that has gone silent is not waited for."""
        if any(row.state is KernelState.COMPILING for row in self._rows.values()):
            self._refresh()

    def set_resident(self, artifact_id: str, num_bytes: int | None) -> None:
        """A kernel takes memory of the training side, or no longer (None)."""
        if num_bytes is None:
            self._resident.pop(artifact_id, None)
        else:
            self._resident[artifact_id] = num_bytes
        self._refresh()

    # What it knows

    @property
    def rows(self) -> list[KernelRow]:
        """Every row, as lists show them."""
        return sorted(self._rows.values(), key=rank)

    @property
    def resident_bytes(self) -> int:
        """Memory of the kernels that are open."""
        return sum(self._resident.values())

    def is_resident(self, artifact_id: str) -> bool:
        """Whether a kernel is open."""
        return artifact_id in self._resident

    def wish(self, variant_key: str) -> KernelRow:
        """The row of a wish, or of the kernel that came of it. Raises EsperdError KERNEL_NOT_WANTED."""
        if variant_key not in self.needs.wishes:
            raise EsperdError("KERNEL_NOT_WANTED", variant_key=variant_key)
        wish = self.needs.wishes[variant_key]
        # A kernel that was made for another batch size may have met it: then no row has its key.
        met = (row for row in self._fitting(wish) if row.state in _ON_ITS_WAY)
        made = sorted(met, key=lambda row: (row.variant_key != variant_key, rank(row)))
        return self._rows.get(variant_key) or self._rows[made[0].name]

    def artifact(self, named: str) -> KernelRow:
        """The row of an artifact, by its id or the only one that begins so. Raises EsperdError KERNEL_UNKNOWN."""
        found = [row for artifact_id, row in self._rows.items() if row.artifact_id and artifact_id.startswith(named)]
        if len(found) != 1:
            raise EsperdError("KERNEL_UNKNOWN", artifact_id=named)
        return found[0]

    def best_for(self, wish: Wish) -> KernelRow | None:
        """The kernel that a seed with this wish should run: the fastest of those that are offered for it."""
        offered = [row for row in self._fitting(wish) if row.state is KernelState.OFFERED and may_be_given(row, wish)]
        return min(offered, key=_slowness, default=None)

    # Watching

    def opening(self, states: frozenset[KernelState]) -> list[bytes]:
        """Every row as a part of a WatchKernelsResponse, or those in these states."""
        return [self._bytes[row.name] for row in self.rows if not states or row.state in states]

    def subscribe(self, states: frozenset[KernelState]) -> Subscription[KernelState]:
        """Follow what changes: the newest of each kernel."""
        return self.feed.subscribe(
            policy=FeedPolicy.LATEST,
            max_items=MAX_WAITING,
            accepts=lambda item: not states or item.value in states,
        )

    # Rows

    def _refresh(self) -> None:
        """Make every row anew and tell watchers of those that have changed."""
        before, self._rows = self._rows, {row.name: row for row in self._all_rows()}
        changed = [row for name, row in self._rows.items() if before.get(name) != row]
        self._bytes = {name: self._bytes[name] for name in self._rows if name in self._bytes}
        for row in changed:
            self._bytes[row.name] = _part(row)
        self._publish([*changed, *self._left(before)])

    def _left(self, before: Mapping[str, KernelRow]) -> Iterator[KernelRow]:
        """Wishes that are none any more; where a kernel was made of one its own row says so."""
        made = {row.variant_key for row in self._rows.values()}
        for name, row in before.items():
            if name not in self._rows and row.variant_key not in made:
                yield replace(row, state=KernelState.REMOVED, detail="nobody wants it any more", sites=())

    def _publish(self, rows: Iterable[KernelRow]) -> None:
        revision = self.feed.token.revision + 1
        parts = {row.name: (row, self._bytes.get(row.name) or _part(row)) for row in rows}
        if not parts:
            return
        if not self.feed.is_known:
            self.feed.skip(revision)
            return
        items = [FeedItem(revision, name, data, row.state) for name, (row, data) in parts.items()]
        self.feed.publish(revision, items)

    def _all_rows(self) -> Iterator[KernelRow]:
        wishes = self.needs.wishes
        now_s = self._clock()
        self._wanted_since_s = {key: self._wanted_since_s.get(key, now_s) for key in wishes}
        self._wishes_of = {}
        for wish in wishes.values():
            self._wishes_of.setdefault(wish.fit, []).append(wish)
        for row in self._artifacts.values():
            yield self._in_the_run(row)
        for wish in wishes.values():
            if not any(row.state in _ON_ITS_WAY for row in self._fitting(wish)):
                yield self._unmet(wish, now_s)

    def _in_the_run(self, row: KernelRow) -> KernelRow:
        """An artifact's row with what the run adds: who could use it, who does, and whether it is open."""
        wishes = [wish for wish in self._wishes_of.get(self._fits[row.artifact_id], ()) if _holds(row, wish)]
        is_offered = row.state is KernelState.OFFERED
        return replace(
            row,
            sites=tuple(dict.fromkeys(site for wish in wishes for site in wish.sites)),
            num_waiting_seeds=0 if is_offered else sum(len(wish.waiting_seed_ids) for wish in wishes),
            seed_ids=self.needs.users.get(row.artifact_id, ()),
            resident=row.artifact_id in self._resident,
            tier=max((wish.tier for wish in wishes), default=BlueprintTier.UNSPECIFIED),
        )

    def _unmet(self, wish: Wish, now_s: float) -> KernelRow:
        told = self._compilations.get(wish.key)
        faulty = max(
            (row for row in self._fitting(wish) if row.state is KernelState.QUARANTINED),
            key=lambda row: row.update_unix_s,
            default=None,
        )
        if told is not None and told.state is KernelState.COMPILING and self._is_over(told, wish, now_s):
            told = None
        state, attempt, detail, since_s = (
            (KernelState.WANTED, 0, "", self._wanted_since_s[wish.key])
            if told is None
            else (told.state, told.attempt, told.detail, told.update_unix_s)
        )
        if faulty is not None and (told is None or faulty.update_unix_s >= since_s):
            state, since_s = KernelState.COMPILE_FAILED, faulty.update_unix_s
            detail = f"kernel {faulty.artifact_id[:12]} was quarantined: {faulty.detail}"
        return KernelRow(
            variant_key=wish.key,
            state=state,
            variant=wish.variant,
            hint_batch=wish.hint_batch,
            tier=wish.tier,
            sites=wish.sites,
            num_waiting_seeds=len(wish.waiting_seed_ids),
            detail=detail,
            num_attempts=attempt,
            update_unix_s=since_s,
        )

    def _is_over(self, told: CompilationReport, wish: Wish, now_s: float) -> bool:
        """Whether nobody works any more on what is told as being compiled: one who does says so again."""
        made_s = max((row.update_unix_s for row in self._fitting(wish)), default=0.0)
        return now_s - told.update_unix_s > FORGOTTEN_S or made_s > told.update_unix_s

    def _fitting(self, wish: Wish) -> list[KernelRow]:
        rows = (self._artifacts[artifact_id] for artifact_id in self._of_fit.get(wish.fit, ()))
        return [row for row in rows if _holds(row, wish)]


def _holds(row: KernelRow, wish: Wish) -> bool:
    return row.min_batch <= wish.hint_batch <= row.max_batch


def may_be_given(row: KernelRow, wish: Wish) -> bool:
    """A restricted kernel is for seeds of blueprints that are no more than tried themselves."""
    is_restricted = row.report is not None and row.report.handling_class is HandlingClass.RESTRICTED
    return not is_restricted or wish.tier in (BlueprintTier.EXPERIMENTAL, BlueprintTier.HIGH_RISK)


def _slowness(row: KernelRow) -> tuple[float, str]:
    return (row.report.step_ratio if row.report is not None else 1.0, row.artifact_id)


def _part(row: KernelRow) -> bytes:
    """The row as a part of a serialised WatchKernelsResponse."""
    return submessage(_KERNELS_FIELD, kernel_message(row).SerializeToString())
