"""Kernels for tests of the control plane: a real library on a real disk, with libraries of random bytes.

The scripted validator stands where the validator's process stands: it opens nothing and says what it is told to. The
scripted trainer of `stage.py` opens nothing either.
"""

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from esper.client.kernel_files import MANIFEST_NAME, KernelFiles, file_name
from esper.client.signing import sign_manifest
from esper.leyline.v1 import kernel_pb2 as pb

from esperd.config.settings import KernelSettings
from esperd.control.kernel_desk import limits_of
from esperd.control.kernel_parts import KernelKeeping
from esperd.leyline.kernel_documents import variant_message
from esperd.leyline.kernels import KernelCheck, KernelManifest, KernelReport, KernelVariant
from esperd.leyline.keyring import KeyRing
from esperd.leyline.verify import Verifier
from esperd.leyline.views import BlueprintOffer, NoticeEvent, ParameterBounds, Snapshot
from esperd.leyline.vocabulary import BlueprintTier, HandlingClass, HazardBand, TrainerPhase
from esperd.oona.records import HistoryQuery, RowKind
from esperd.urza.library import Library
from esperd.urza.store import open_store
from esperd.urza.trust import KernelTrust
from esperd.urza.validator_key import validator_key
from tests.integration.control.stage import COST, Theatre, first_snapshot, open_stage

VARIANT = KernelVariant(
    "bottleneck", "ab" * 32, {"width": 8.0}, (16, 4, 4), "float32", "float32", "", "cpu", "AVX2", "x86_64", "2.13.0"
)
BATCH = 8
_NOTICES = HistoryQuery(kinds=(RowKind.NOTICE,))


def kernel_snapshot(phase: TrainerPhase = TrainerPhase.TRAINING) -> Snapshot:
    """A run whose two sites offer one blueprint, and whose seed of it could use a kernel."""
    bounds = {"width": ParameterBounds(1.0, 64.0, 8.0, True)}
    offer = BlueprintOffer(
        "bottleneck", BlueprintTier.SAFE, 0.25, COST, "Bottleneck", "Down and up again.", bounds, VARIANT
    )
    snapshot = first_snapshot(phase)
    sites = tuple(replace(site, offers=(offer,), batch_size=BATCH) for site in snapshot.sites)
    return replace(snapshot, sites=sites, seeds=tuple(replace(seed, variant=VARIANT) for seed in snapshot.seeds))


def write_kernel(
    folder: Path, variant: KernelVariant = VARIANT, *, hint: int = BATCH, most: int = 64, num_bytes: int = 300_000
) -> KernelFiles:
    """A kernel as a compiler leaves it, unsigned; its libraries are random bytes."""
    folder.mkdir(parents=True)
    libraries = {role: secrets.token_bytes(num_bytes + role) for role in (1, 2, 3)}
    files = [
        pb.KernelFile(role=role, sha256=hashlib.sha256(data).digest(), num_bytes=len(data))  # type: ignore[arg-type]
        for role, data in libraries.items()
    ]
    manifest = pb.KernelManifest(
        schema=1,
        variant=variant_message(variant),
        min_batch=1,
        max_batch=most,
        hint_batch=hint,
        inputs=[
            pb.KernelInput(kind=1, name="weight", dtype="float32", shape=[4, 4], requires_grad=True),  # type: ignore[arg-type]
            pb.KernelInput(kind=3, dtype="float32", shape=variant.tail_shape, requires_grad=True),  # type: ignore[arg-type]
        ],
        saved=[pb.SavedTensor(is_input=True, index=0)],
        gradients=[0, 1],
        parameter_gradients=[0, -1],
        files=files,
        strategy="standard",
        compile_s=1.5,
        compiler="none",
    )
    manifest.create_time.FromNanoseconds(time.time_ns())
    (folder / MANIFEST_NAME).write_bytes(manifest.SerializeToString())
    for file in files:
        (folder / file_name(file)).write_bytes(libraries[file.role])
    return KernelFiles.read(folder)


class ScriptedValidator:
    """Says of every kernel what it is told to say."""

    def __init__(self) -> None:
        self.handling = HandlingClass.STANDARD
        self.step_ratio = 0.8
        self.is_stuck = False
        self.seen: list[str] = []
        self.settings = KernelSettings()
        """Those of the last validation."""

    async def validate(self, folder: Path, manifest: KernelManifest, settings: KernelSettings) -> KernelReport:
        self.seen.append(manifest.artifact_id)
        self.settings = settings
        assert (folder / MANIFEST_NAME).exists()
        while self.is_stuck:
            await asyncio.sleep(0.005)
        is_good = self.handling is not HandlingClass.QUARANTINE
        check = KernelCheck("parameter_gradients", is_good, 1e-7 if is_good else 0.4, 1e-5, "relative error", "")
        return KernelReport(
            manifest.artifact_id,
            "1",
            (check,),
            2.0,
            1.0,
            self.step_ratio,
            self.step_ratio,
            1e-7,
            500_000,
            0.1,
            HazardBand.LOW if is_good else HazardBand.CRITICAL,
            self.handling,
            time.time(),
        )


def keep_kernels(
    directory: Path, validator: ScriptedValidator, settings: KernelSettings
) -> Callable[[Verifier], KernelKeeping]:
    """What kernels are kept with, below a directory, as the supervisor would make it."""

    def make(verifier: Verifier) -> KernelKeeping:
        key = validator_key(directory / "validator.key", secrets.token_bytes)
        trust = KernelTrust(lambda: verifier.keyring or KeyRing([]), {key.key_id: key.secret}, time.time)
        folder = directory / "kernels"
        library = Library(folder, open_store("", folder / "library"), trust, limits_of(settings), time.time)
        return KernelKeeping(library, trust, validator, key, folder)

    return make


@contextlib.asynccontextmanager
async def open_kernel_stage(
    directory: Path,
    validator: ScriptedValidator | None = None,
    *,
    settings: KernelSettings | None = None,
    snapshot: Snapshot | None = None,
    **options: Any,
) -> AsyncIterator[Theatre]:
    """A stage that keeps kernels."""
    settings = settings or KernelSettings(fetch_budget_ms=60_000.0)
    async with open_stage(
        directory,
        kernels=keep_kernels(directory, validator or ScriptedValidator(), settings),
        kernel_settings=settings,
        snapshot=snapshot or kernel_snapshot(),
        **options,
    ) as stage:
        yield stage


def signed(files: KernelFiles, stage: Theatre, who: str = "compiler") -> KernelFiles:
    """The kernel with the signature of somebody."""
    return replace(files, signature=sign_manifest(stage.credentials(who), files.manifest))


async def notices(stage: Theatre, kinds: Sequence[str]) -> list[str]:
    """The notices of these kinds in the journal, in order."""
    await stage.server.parts.recorder.flush(5.0)
    page = await stage.journal.list_history(_NOTICES, 1000, "")
    found = [row.record for row in page.rows if isinstance(row.record, NoticeEvent)]
    return [notice.kind for notice in found if notice.kind in kinds]
