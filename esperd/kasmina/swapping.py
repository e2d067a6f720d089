"""Kernels and seeds: which seed computes by which, and what happens when a kernel does not do.

Training thread only, at safe points; a fault is heard in the middle of a step. A swap changes one attribute of a seed:
its parameters and its optimizer stay as they are, bit for bit. Every way back to the eager module is told.
"""

from collections.abc import Iterable

from esperd.kasmina.garden import Garden
from esperd.kasmina.kernels.attached import Attached
from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.stock import KernelStock
from esperd.kasmina.ports import Attribution
from esperd.kasmina.seed import Seed
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelVariant, misfits


class Swapping:
    """Joins seeds and kernels; hears how they get on (`attached.Listener`)."""

    def __init__(self, garden: Garden, stock: KernelStock | None) -> None:
        self._garden = garden
        self._stock = stock
        self.has_changed = False
        """Whether a seed went back to its eager module by itself since the last `take_changed`."""
        if stock is not None:
            stock.in_use = lambda: {seed.kernel_artifact_id for seed in garden.seeds.values() if seed.attached}

    def take_changed(self) -> bool:
        """`has_changed`, which is then over."""
        changed, self.has_changed = self.has_changed, False
        return changed

    def swap(self, seed: Seed, artifact_id: str, step: int, by: Attribution, *, is_repeated: bool) -> None:
        """Have a seed compute by a kernel, or by its eager module where `artifact_id` is empty.

        Args:
            seed: a live or fossilized one.
            artifact_id: the kernel, or empty.
            step: now.
            by: who asks.
            is_repeated: it has been done at this step before, and is done again: the kernel is opened here and now if
                it is not in memory. If that cannot be, the seed runs eager, and the run is told to be no longer exact.

        Raises:
            EsperdError: KERNELS_DISABLED, KERNEL_NOT_RESIDENT, KERNEL_UNLOADABLE, KERNEL_MISFIT; nothing has changed.
        """
        if not artifact_id:
            self._put_back(seed)
            seed.refuses_kernels = True
            self._tell_swap(seed, f"seed {seed.seed_id} runs its eager module", step, by)
        elif is_repeated:
            self._attach_again(seed, artifact_id, step)
        else:
            self._attach(seed, self._stocked().resident(artifact_id))
            self._tell_swap(seed, f"seed {seed.seed_id} runs kernel {artifact_id}", step, by)

    def restore(self, seeds: Iterable[Seed], step: int) -> None:
        """Join seeds of a state that was loaded to the kernels that they had then."""
        for seed in seeds:
            artifact_id, seed.kernel_artifact_id = seed.kernel_artifact_id, ""
            if artifact_id:
                self._attach_again(seed, artifact_id, step)

    # What `Attached` tells

    def fell_back(self, seed_id: int, reason: str) -> None:
        """See `attached.Listener`."""
        seed = self._garden.seeds.get(seed_id)
        if seed is not None:
            seed.kernel_note = f"eager where {reason}"
            self._tell_fallback(seed, reason, "info", is_exact=True)

    def failed(self, seed_id: int, detail: str) -> None:
        """See `attached.Listener`: the kernel leaves every seed that has it."""
        seed = self._garden.seeds.get(seed_id)
        artifact_id = "" if seed is None else seed.kernel_artifact_id
        if not artifact_id or self._stock is None:
            return  # heard before: one step may run it more than once
        affected = [seed for seed in self._garden.seeds.values() if seed.kernel_artifact_id == artifact_id]
        for seed in affected:
            self._put_back(seed)
            seed.kernel_note = f"kernel {artifact_id[:12]} has failed: {detail}"
        self._stock.cache.fail(artifact_id, detail)
        attributes = {"artifact_id": artifact_id, "seed_id": str(seed_id)}
        message = f"kernel {artifact_id} has failed in seed {seed_id}: {detail}"
        self._garden.notice("kernel.failed", message, "error", self._garden.step(), attributes)
        for seed in affected:
            self._tell_fallback(seed, seed.kernel_note, "warning", is_exact=False)

    # Inside

    def _stocked(self) -> KernelStock:
        if self._stock is None:
            raise EsperdError("KERNELS_DISABLED")
        return self._stock

    def _attach_again(self, seed: Seed, artifact_id: str, step: int) -> None:
        try:
            self._attach(seed, self._stocked().fetched_now(artifact_id))
        except EsperdError as error:
            self._put_back(seed)
            seed.kernel_note = error.message
            self._tell_fallback(seed, error.message, "warning", is_exact=False, step=step)

    def _attach(self, seed: Seed, kernel: Kernel) -> None:
        artifact_id, stock = kernel.artifact_id, self._stocked()
        site = self._garden.slot_of(seed).site
        wrong = _misfits(kernel, seed.variant, self._garden.batch_size(site))
        if wrong:
            raise EsperdError("KERNEL_MISFIT", artifact_id=artifact_id, detail="; ".join(wrong))
        seed.attached = Attached(kernel, seed.module, seed.seed_id, self)
        seed.kernel_artifact_id, seed.kernel_note, seed.refuses_kernels = artifact_id, "", False
        seed.prewarm_ms = stock.prewarm_ms(artifact_id)

    def _put_back(self, seed: Seed) -> None:
        seed.attached = None
        seed.kernel_artifact_id, seed.kernel_note, seed.prewarm_ms = "", "", 0.0

    def _tell_swap(self, seed: Seed, message: str, step: int, by: Attribution) -> None:
        attributes = {"seed_id": str(seed.seed_id), "artifact_id": seed.kernel_artifact_id, "cause": by.cause}
        self._garden.notice("kernel.swapped", message, "info", step, attributes)

    def _tell_fallback(self, seed: Seed, reason: str, level: str, *, is_exact: bool, step: int | None = None) -> None:
        self.has_changed = True
        message = f"seed {seed.seed_id} runs its eager module: {reason}"
        if not is_exact:
            message += "; from here the run is no longer bit for bit what it would have been with the kernel"
        attributes = {"seed_id": str(seed.seed_id), "reason": reason}
        at = self._garden.step() if step is None else step
        self._garden.notice("kernel.fallback", message, level, at, attributes)


def _misfits(kernel: Kernel, wanted: KernelVariant | None, batch_size: int) -> list[str]:
    if wanted is None:
        return ["the source of the seed's blueprint cannot be read"]
    manifest = kernel.manifest
    found = list(misfits(manifest.variant, wanted))
    if batch_size and not manifest.min_batch <= batch_size <= manifest.max_batch:
        found.append(f"batches are {manifest.min_batch} to {manifest.max_batch}, the run trains with {batch_size}")
    return found
