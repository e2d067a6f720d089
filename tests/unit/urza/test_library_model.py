"""Any order of calls by two daemons on one store, with corrupt files, revoked keys and restarts in between."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import read_manifest
from esperd.leyline.vocabulary import HandlingClass, KernelState
from esperd.urza.library import CATALOGUE_NAME, Library
from esperd.urza.store import open_store
from tests.unit.urza.samples import COMPILER, OTHER_COMPILER, ROLES, World, library, make, report_on, revoked

MADE = [make(seed, 40) for seed in range(3)]
QUOTA_BYTES = 300
"""Room for two of three kernels."""

EXPECTED = {
    "KERNEL_UNKNOWN",
    "KERNEL_NOT_OFFERED",
    "KERNEL_CORRUPT",
    "KERNEL_REPORT_INVALID",
    "KERNEL_QUOTA",
    "KERNEL_SIGNATURE_INVALID",
}

WHICH = st.integers(0, len(MADE) - 1)
DAEMON = st.integers(0, 1)


class LibraryModel(RuleBasedStateMachine):
    """What must hold whatever happens is written as invariants."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.world = World()
        self.store = open_store("", self.root / "store")
        self.runs = [self.opened(daemon) for daemon in (0, 1)]

    def opened(self, daemon: int) -> Library:
        return library(self.root / f"run{daemon}", self.store, self.world, QUOTA_BYTES)

    def teardown(self) -> None:
        for run in getattr(self, "runs", []):
            run.close()
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    @rule(daemon=DAEMON, which=WHICH)
    def create(self, daemon: int, which: int) -> None:
        made = MADE[which]
        self.quietly(lambda: self.runs[daemon].create_upload(made.manifest, made.signature, "x"))

    @rule(daemon=DAEMON, which=WHICH, role=st.sampled_from(ROLES), num=st.integers(1, 60), back=st.integers(0, 20))
    def chunk(self, daemon: int, which: int, role: int, num: int, back: int) -> None:
        run, made = self.runs[daemon], MADE[which]
        kernel = run.kernels.get(made.artifact_id)
        if kernel is None or kernel.state is not KernelState.UPLOADING:
            return
        (part,) = [part for part in kernel.progress if part.role is role]
        offset = max(part.num_received - back, 0)
        data = made.libraries[part.role][offset : offset + num]
        if data:
            after = run.add_chunk(made.artifact_id, part.role, offset, data)
            (now,) = [part for part in after.progress if part.role is role]
            assert now.num_received == max(part.num_received, offset + len(data))

    @rule(daemon=DAEMON, which=WHICH)
    def send_all(self, daemon: int, which: int) -> None:
        run, made = self.runs[daemon], MADE[which]
        kernel = run.kernels.get(made.artifact_id)
        if kernel is None or kernel.state is not KernelState.UPLOADING:
            return
        for part in kernel.progress:
            data = made.libraries[part.role][part.num_received :]
            if data:
                run.add_chunk(made.artifact_id, part.role, part.num_received, data)
        assert run.finish(made.artifact_id).is_stored

    @rule(daemon=DAEMON, which=WHICH, handling=st.sampled_from(HandlingClass))
    def report(self, daemon: int, which: int, handling: HandlingClass) -> None:
        self.quietly(lambda: self.runs[daemon].offer(self.name(which), *report_on(self.name(which), handling)))

    @rule(daemon=DAEMON, which=WHICH)
    def fault(self, daemon: int, which: int) -> None:
        self.quietly(lambda: self.runs[daemon].quarantine(self.name(which), "crashed"))

    @rule(daemon=DAEMON, which=WHICH)
    def delete(self, daemon: int, which: int) -> None:
        self.quietly(lambda: self.runs[daemon].delete(self.name(which), ""))

    @rule(daemon=DAEMON, which=WHICH, pinned=st.booleans())
    def pin(self, daemon: int, which: int, pinned: bool) -> None:
        self.quietly(lambda: self.runs[daemon].pin(self.name(which), pinned))

    @rule(which=WHICH, number=st.integers(0, 8), torn=st.booleans())
    def damage(self, which: int, number: int, torn: bool) -> None:
        """A disk changes a byte of some file, or loses its end."""
        names = sorted(name for name in self.store.files(self.name(which)) if name != "fault.json")
        if names:
            name = names[number % len(names)]
            data = bytearray(b"".join(self.store.read(self.name(which), name)))
            data[len(data) // 2] ^= 1
            self.store.write(self.name(which), name, [bytes(data[: len(data) // 2] if torn else data)])

    @rule(daemon=DAEMON, which=WHICH)
    def verify(self, daemon: int, which: int) -> None:
        run = self.runs[daemon]
        findings = self.quietly(lambda: run.verify(self.name(which)))
        if findings == () and run.kernels[self.name(which)].is_stored:
            for role in ROLES:
                assert run.read_library(self.name(which), role) == MADE[which].libraries[role]

    @rule(daemon=DAEMON, which=WHICH)
    def use(self, daemon: int, which: int) -> None:
        """What a seed is given is what was uploaded, or it is given nothing and the kernel is gone."""
        run, folder = self.runs[daemon], self.root / f"local{daemon}" / self.name(which)
        kernel = run.kernels.get(self.name(which))
        if kernel is None or kernel.state is not KernelState.OFFERED:
            return
        if self.quietly(lambda: run.open_local_copy(self.name(which), folder)) is None:
            assert run.kernels[self.name(which)].state is KernelState.REMOVED
            return
        for file in read_manifest(MADE[which].manifest).files.values():
            assert (folder / file.name).read_bytes() == MADE[which].libraries[file.role]

    @rule(key=st.sampled_from([COMPILER, revoked(COMPILER)]))
    def keys(self, key: object) -> None:
        self.world.keys = [key, OTHER_COMPILER]  # type: ignore[list-item]
        for run in self.runs:
            run.rescan()

    @rule(daemon=DAEMON, lost=st.booleans())
    def restart(self, daemon: int, lost: bool) -> None:
        before = self.runs[daemon].kernels
        self.runs[daemon].close()
        if lost:
            (self.root / f"run{daemon}" / CATALOGUE_NAME).unlink()
        else:
            reopened = Library(
                self.root / f"run{daemon}", self.store, self.world.trust(), self.runs[daemon].limits, self.world.clock
            )
            assert reopened.kernels == before
            reopened.close()
        self.runs[daemon] = self.opened(daemon)

    @rule(daemon=DAEMON, which=WHICH, hours=st.integers(0, 30))
    def retain(self, daemon: int, which: int, hours: int) -> None:
        self.world.now_unix_s += hours * 3600.0
        used = self.runs[daemon].kernels.get(self.name(which))
        self.runs[daemon].retain({self.name(which)})
        if used is not None and used.is_stored:
            assert self.runs[daemon].kernels[self.name(which)].is_stored

    @invariant()
    def whoever_is_offered_is_trusted(self) -> None:
        for run in getattr(self, "runs", []):
            for kernel in run.kernels.values():
                if kernel.state is KernelState.OFFERED:
                    self.world.trust().check(kernel.documents)

    @rule(daemon=DAEMON)
    def look(self, daemon: int) -> None:
        """After a look at the store it is known what lies there, and nothing with a fault is offered."""
        run = self.runs[daemon]
        run.rescan()
        lying = self.store.folders()
        assert {name for name, kernel in run.kernels.items() if kernel.is_stored} == {
            name for name, files in lying.items() if "manifest.binpb" in files
        }
        for name, files in lying.items():
            if "fault.json" in files and "manifest.binpb" in files:
                assert run.kernels[name].state is KernelState.QUARANTINED

    @invariant()
    def the_quota_is_kept_by_what_came_through_here(self) -> None:
        for run in getattr(self, "runs", []):
            coming = [k for k in run.kernels.values() if k.state is KernelState.UPLOADING]
            assert sum(k.num_bytes for k in coming) <= QUOTA_BYTES

    def name(self, which: int) -> str:
        return MADE[which].artifact_id

    def quietly(self, call: object) -> object:
        try:
            return call()  # type: ignore[operator]
        except EsperdError as error:
            if error.reason not in EXPECTED:
                raise
            return None


TestLibrary = LibraryModel.TestCase
TestLibrary.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
