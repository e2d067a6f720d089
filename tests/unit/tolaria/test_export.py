"""An exported model loads without esperd and gives the outputs of the run; what cannot be exported leaves nothing."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from esperd.kasmina.executor import SeedExecutor
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import BlendMode, Stage
from esperd.tolaria.export import Exported, ExportPlan, export_checkpoint
from esperd.tolaria.export_files import FORMATS
from tests.unit.kasmina.fossils import graft, plant
from tests.unit.tolaria.exporting import CHECKPOINT, Source, nothing, settings_for

TASKS = "tests.unit.tolaria.exporting"

STRANGER = """
import importlib.util, sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("esperd", "esper", "safetensors", "tests"):
            raise ImportError(f"{name} is not for strangers")

sys.meta_path.insert(0, Blocker())
import torch
torch.set_num_threads(1)
for directory in map(Path, sys.argv[1:]):
    seen = torch.load(directory.parent / "seen.pt", weights_only=True)
    if (directory / "model.pt2").exists():
        model = torch.export.load(directory / "model.pt2").module()
    else:
        spec = importlib.util.spec_from_file_location("model", directory / "model.py")
        source = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(source)
        model = source.load(directory / "model.safetensors")
    with torch.no_grad():
        output = model(seen["inputs"])
        alone = model(seen["inputs"][:1])
    assert output.dtype is seen["expected"].dtype and torch.equal(output, seen["expected"]), directory
    torch.testing.assert_close(alone, seen["expected"][:1])
assert not {"esperd", "esper", "safetensors"} & {name.partition(".")[0] for name in sys.modules}
print("equal")
"""


def digits(executor: SeedExecutor) -> None:
    plant(executor, "block1", "residual_conv", BlendMode.GATE, amplitude=0.5)
    plant(executor, "block1", "norm", BlendMode.BERNOULLI)
    plant(executor, "block2", "conv1x1", BlendMode.CHANNEL)


def windows(executor: SeedExecutor) -> None:
    plant(executor, "blocks.0", "causal_attention", BlendMode.CONVEX)
    plant(executor, "blocks.0", "transformer_block", BlendMode.BERNOULLI, amplitude=0.25)


def rows(executor: SeedExecutor) -> None:
    plant(executor, "hidden1", "residual_mlp", BlendMode.MULTIPLY)
    plant(executor, "head", "residual_linear", BlendMode.CONFIDENCE)


def export(source: Source, directory: Path, format_name: str = "safetensors", **wish: Any) -> Exported:
    plan = ExportPlan(format_name, directory, **wish)
    return export_checkpoint(source.settings, None, source.stored, plan, lambda: 5000.0)


def refusal(source: Source, directory: Path, **wish: Any) -> EsperdError:
    """The error of an export that is refused and leaves nothing behind."""
    before = sorted(directory.parent.iterdir())
    with pytest.raises(EsperdError) as caught:
        export(source, directory, **wish)
    assert sorted(directory.parent.iterdir()) == before
    return caught.value


def output_of(directory: Path, format_name: str, inputs: Any) -> Any:
    with torch.no_grad():
        return FORMATS[format_name].load(directory)(inputs)


@pytest.fixture
def grown(tmp_path: Path) -> Source:
    """Digits with three fossils."""
    return Source(tmp_path / "checkpoints", settings_for("esperd.examples.digits:build", ("block1", "block2")), digits)


def test_a_stranger_gets_the_outputs_of_the_run(tmp_path: Path) -> None:
    """A process that cannot import esperd, esper or safetensors: both formats, three tasks, bfloat16; bit for bit."""
    cases = {
        "digits": Source(tmp_path / "a", settings_for("esperd.examples.digits:build", ("block1", "block2")), digits),
        "bytes": Source(tmp_path / "b", settings_for("esperd.examples.bytes:build", ("blocks.*",)), windows),
        "tabular": Source(tmp_path / "c", settings_for("esperd.examples.tabular:build", ("hidden1", "head")), rows),
        "bf16": Source(
            tmp_path / "d", settings_for("esperd.examples.digits:build", ("block1", "block2"), amp="bf16"), digits
        ),
    }
    directories = []
    for name, source in cases.items():
        for format_name in FORMATS:
            directory = tmp_path / name / format_name
            export(source, directory, format_name)
            directories.append(str(directory))
        torch.save({"inputs": source.inputs, "expected": source.expected}, tmp_path / name / "seen.pt")
    ended = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, *directories], capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.stdout.strip() == "equal", ended.stderr


def test_the_manifest_tells_what_it_is(grown: Source, tmp_path: Path) -> None:
    """Run, step, seeds, shapes, batch and the digests of the files."""
    exported = export(grown, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "export.json").read_text())
    assert [file.name for file in exported.files] == ["model.py", "model.safetensors", "export.json"]
    assert document["files"] == [
        {"name": f.name, "num_bytes": f.num_bytes, "sha256": f.sha256} for f in exported.files[:2]
    ]
    assert (document["run_id"], document["checkpoint_id"], document["global_step"]) == ("run", CHECKPOINT, 7)
    seeds = [(seed["seed_id"], seed["site"], seed["blueprint_id"], seed["blend_mode"]) for seed in document["seeds"]]
    assert seeds == [
        (1, "block1", "residual_conv", "GATE"),
        (2, "block1", "norm", "BERNOULLI"),
        (3, "block2", "conv1x1", "CHANNEL"),
    ]
    assert document["seeds_left_out"] == []
    assert document["inputs"] == [{"name": "inputs", "shape": [64, 1, 8, 8], "dtype": "float32"}]
    assert document["outputs"] == [{"name": "output", "shape": [64, 10], "dtype": "float32"}]
    assert document["batch"] == {"is_dynamic": True, "size": 64, "note": ""}
    assert document["compared"] == {"num_samples": 64, "max_difference": 0.0}
    assert document["exported_unix_s"] == 5000.0


def test_weights_have_the_names_of_the_host(grown: Source, tmp_path: Path) -> None:
    """The host's keys are its own, what was grown is below `seeds`; nothing else is in the file."""
    export(grown, tmp_path / "out")
    keys = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert grown.host_keys <= keys
    assert {name.split(".")[0] for name in keys - grown.host_keys} == {"seeds"}
    assert {name.split(".")[1] for name in keys - grown.host_keys} == {"1", "2", "3"}


@pytest.mark.parametrize("format_name", FORMATS)
def test_nothing_of_this_machine_is_in_the_files(grown: Source, tmp_path: Path, format_name: str) -> None:
    """No path of the machine that exported, no training data."""
    export(grown, tmp_path / "out", format_name)
    root = str(Path(__file__).resolve().parents[3]).encode()
    sample = grown.inputs[0].numpy().tobytes()
    for path in (tmp_path / "out").iterdir():
        parts = _unpacked(path)
        assert not [name for name, data in parts.items() if root in data or sample in data], path
    if format_name == "safetensors":
        assert not [path.name for path in (tmp_path / "out").iterdir() if b".pkl" in path.read_bytes()]
    else:
        assert torch.export.load(tmp_path / "out" / "model.pt2").example_inputs is None


def _unpacked(path: Path) -> dict[str, bytes]:
    if not zipfile.is_zipfile(path):
        return {path.name: path.read_bytes()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_live_seeds_are_refused_by_name(tmp_path: Path) -> None:
    """EXPORT_UNSETTLED names each seed with its site and stage, and nothing is written."""

    def grow(executor: SeedExecutor) -> None:
        digits(executor)
        graft(executor, "block1", "conv1x1", Stage.BLENDING, 0.5)
        graft(executor, "block2", "conv1x1", Stage.PROBATIONARY, 1.0)

    settings = settings_for("esperd.examples.digits:build", ("block1", "block2"))
    source = Source(tmp_path / "checkpoints", settings, grow)
    error = refusal(source, tmp_path / "out")
    assert error.reason == "EXPORT_UNSETTLED"
    assert "seed 4 at block1 is BLENDING" in error.message
    assert "seed 5 at block2 is PROBATIONARY" in error.message
    assert "--without-live-seeds" in error.message


@pytest.mark.parametrize("format_name", FORMATS)
def test_live_seeds_can_be_left_out(tmp_path: Path, format_name: str) -> None:
    """The output is then exactly that of host and fossils, and the manifest names what is missing."""

    def grow(executor: SeedExecutor) -> None:
        digits(executor)
        graft(executor, "block1", "conv1x1", Stage.BLENDING, 0.5)

    settings = settings_for("esperd.examples.digits:build", ("block1", "block2"))
    source = Source(tmp_path / "checkpoints", settings, grow)
    export(source, tmp_path / "out", format_name, without_live_seeds=True)
    assert torch.equal(output_of(tmp_path / "out", format_name, source.inputs), source.expected)
    document = json.loads((tmp_path / "out" / "export.json").read_text())
    assert [(seed["seed_id"], seed["stage"]) for seed in document["seeds_left_out"]] == [(4, "BLENDING")]
    assert [seed["seed_id"] for seed in document["seeds"]] == [1, 2, 3]
    assert refusal(source, tmp_path / "out", format_name=format_name).reason == "FILE_EXISTS"


@pytest.mark.parametrize("name", ["state.json", "host.safetensors", "growth.safetensors", "manifest.json"])
def test_a_tampered_checkpoint_is_refused(grown: Source, tmp_path: Path, name: str) -> None:
    """One byte changed in any file that is read: CHECKPOINT_CORRUPT, nothing written."""
    path = grown.stored.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(EsperdError) as caught:
        _look_and_export(grown, tmp_path / "out")
    assert caught.value.reason == "CHECKPOINT_CORRUPT"
    assert not (tmp_path / "out").exists()


def _look_and_export(source: Source, directory: Path) -> None:
    source.stored = source.store.get(CHECKPOINT)
    export(source, directory)


def test_a_checkpoint_of_another_model_is_refused(grown: Source, tmp_path: Path) -> None:
    """Another task, another width or other sites: CHECKPOINT_MISMATCH says what does not fit."""
    grown.settings = settings_for("esperd.examples.tabular:build", ("hidden1",))
    assert refusal(grown, tmp_path / "out").reason == "CHECKPOINT_MISMATCH"
    grown.settings = settings_for("esperd.examples.digits:build", ("block1", "block2"), width1=5)
    error = refusal(grown, tmp_path / "out")
    assert error.reason == "CHECKPOINT_MISMATCH"
    assert "block1.0.weight" in error.message
    grown.settings = settings_for("esperd.examples.digits:build", ("block2",))
    error = refusal(grown, tmp_path / "out")
    assert error.reason == "CHECKPOINT_MISMATCH"
    assert "block1" in error.message


def test_asking_twice_writes_once(grown: Source, tmp_path: Path) -> None:
    """The same wish for the same directory gives what is there; a changed file or another wish is refused."""
    first = export(grown, tmp_path / "out")
    written = (tmp_path / "out" / "export.json").stat().st_mtime_ns
    assert export(grown, tmp_path / "out") == first
    assert (tmp_path / "out" / "export.json").stat().st_mtime_ns == written
    assert refusal(grown, tmp_path / "out", format_name="torch-export").reason == "FILE_EXISTS"
    (tmp_path / "out" / "model.py").write_text("changed")
    assert refusal(grown, tmp_path / "out").reason == "FILE_EXISTS"


def test_an_ungrown_run_can_be_exported(tmp_path: Path) -> None:
    """Without a single seed the export is the host."""
    source = Source(tmp_path / "checkpoints", settings_for("esperd.examples.tabular:build", ("hidden1",)), nothing)
    export(source, tmp_path / "out")
    assert torch.equal(output_of(tmp_path / "out", "safetensors", source.inputs), source.expected)
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == source.host_keys


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("task", ["tied", "muted"])
def test_odd_models_come_through(tmp_path: Path, task: str, format_name: str) -> None:
    """Tied and unused weights, buffers outside the state dict, nested outputs, gradients off in the middle."""
    source = Source(tmp_path / "checkpoints", settings_for(f"{TASKS}:{task}", ()), nothing)
    export(source, tmp_path / "out", format_name)
    torch.testing.assert_close(
        output_of(tmp_path / "out", format_name, source.inputs), source.expected, rtol=0.0, atol=0.0
    )


def test_a_tied_weight_stays_one(tmp_path: Path) -> None:
    """The file has a shared weight once, the loaded model has it under both names, as one parameter."""
    source = Source(tmp_path / "checkpoints", settings_for(f"{TASKS}:tied", ()), nothing)
    export(source, tmp_path / "out")
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == {
        "inner.weight",
        "unused.weight",
        "unused.bias",
        "table",
    }
    model: Any = FORMATS["safetensors"].load(tmp_path / "out")
    assert model.inner.weight is model.outer.weight
    assert source.host_keys <= set(model.state_dict())


def test_a_model_that_fixes_its_batch_size_says_so(tmp_path: Path) -> None:
    """The export then takes the batches of the run, and the manifest and the source say which."""
    source = Source(tmp_path / "checkpoints", settings_for(f"{TASKS}:fixed", ()), nothing)
    export(source, tmp_path / "out")
    batch = json.loads((tmp_path / "out" / "export.json").read_text())["batch"]
    assert (batch["is_dynamic"], batch["size"]) == (False, 8)
    assert batch["note"]
    assert "batches of 8 only" in (tmp_path / "out" / "model.py").read_text()
    assert torch.equal(output_of(tmp_path / "out", "safetensors", source.inputs), source.expected)


def test_a_model_that_cannot_be_captured_is_refused(tmp_path: Path) -> None:
    """A way that depends on values: EXPORT_FAILED with torch's reason, nothing left behind."""
    source = Source(tmp_path / "checkpoints", settings_for(f"{TASKS}:deciding", ()), nothing)
    error = refusal(source, tmp_path / "out")
    assert error.reason == "EXPORT_FAILED"
    assert "torch.export" in error.message


def test_a_place_that_cannot_be_written_is_told(grown: Source, tmp_path: Path) -> None:
    """A file where a directory should be."""
    (tmp_path / "file").write_text("here")
    with pytest.raises(EsperdError) as caught:
        export(grown, tmp_path / "file" / "out")
    assert caught.value.reason == "EXPORT_FAILED"
    assert "file" in caught.value.message
