"""What an operator types about kernels, and what comes of it."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from esper.ctl.main import main
from esper.leyline.v1 import kernel_pb2 as pb
from esper.leyline.v1 import kernel_service_pb2
from esper.leyline.v1 import vocabulary_pb2 as v

from tests.unit.ctl.small_daemon import SmallDaemon
from tests.unit.ctl.small_library import offered, wanted, written_kernel

NAME = "ab" * 32


def ctl(daemon: SmallDaemon, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["-a", daemon.address, *arguments], catch_exceptions=False)


@pytest.fixture
def kernels(daemon: SmallDaemon) -> SmallDaemon:
    """With one kernel that is offered and one that is wanted."""
    failed = pb.KernelCheck(name="step", passed=False, value=1.3, limit=1.0, unit="of eager", detail="slower")
    bounds = kernel_service_pb2.BlueprintParameterBounds(min_value=1, max_value=256, default_value=16, integer=True)
    daemon.library.put(
        offered(NAME),
        wanted(),
        offered("cd" * 32, state=pb.KERNEL_STATE_QUARANTINED, report=pb.KernelReport(checks=[failed])),
    )
    daemon.library.blueprints = [
        kernel_service_pb2.BlueprintDescriptor(
            blueprint_id="bottleneck", tier=v.BLUEPRINT_TIER_SAFE, risk=0.25, allowed_parameters={"width": bounds},
            sites=["conv1"], description="Down, and up again.",
        )
    ]  # fmt: skip
    return daemon


READS = [("kernels", "list"), ("kernels", "show", NAME[:6]), ("blueprints",)]


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_every_read_in_every_form(kernels: SmallDaemon, arguments: tuple[str, ...], output: str) -> None:
    """Each read answers as a table, as JSON and as YAML."""
    result = ctl(kernels, *arguments, "-o", output)
    assert result.exit_code == 0, result.stderr
    if output == "json":
        json.loads(result.stdout)
    elif output == "yaml":
        assert yaml.safe_load(result.stdout)


def test_the_table_tells_what_matters(kernels: SmallDaemon) -> None:
    """State, size, step ratio and load time of each; the check that failed; how full the library is."""
    lines = ctl(kernels, "kernels", "list").stdout.splitlines()
    assert lines[0].split() == ["KERNEL", "STATE", "BLUEPRINT", "SHAPE", "BATCH", "SIZE", "STEP", "LOAD", "MS", "SEEDS",
                                "WAITING", "NOTE"]  # fmt: skip
    assert lines[1].split() == [NAME[:12], "OFFERED", "residual_mlp", "16", "float32", "1-64", "1.2", "MB", "0.81",
                                "1.9", "3", "-"]  # fmt: skip
    assert lines[2].split()[:2] == ["-", "WANTED"]
    assert lines[3].endswith("failed step 1.3 of eager (limit 1): slower")
    assert lines[4] == "stored 1.2 MB of 2 GB, in memory 0 B"


def test_it_is_told_that_kernels_are_switched_off(kernels: SmallDaemon) -> None:
    """Else somebody waits for a compiler that has nothing to do."""
    kernels.library.quota_bytes = 0
    told = ctl(kernels, "kernels", "list").stdout.splitlines()[-1]
    assert told == "kernels are switched off in this daemon: [kernels] enabled"


def test_a_state_can_be_chosen(kernels: SmallDaemon) -> None:
    """In small letters too."""
    lines = ctl(kernels, "kernels", "list", "--state", "wanted").stdout.splitlines()
    assert len(lines) == 3


def test_no_words_of_others_move_the_cursor(kernels: SmallDaemon) -> None:
    """A compiler's detail stays text, in tables and in lines."""
    one = wanted()
    one.detail = "fine\x1b[2J\nOFFERED"
    kernels.library.put(one)
    shown = ctl(kernels, "kernels", "list").stdout
    assert "\x1b" not in shown
    assert "\nOFFERED" not in shown


def test_an_upload_goes_on_and_waits_for_the_validator(daemon: SmallDaemon, tmp_path: Path) -> None:
    """A stream that is cut is taken up where it stood; with --wait the outcome decides the exit code."""
    name = written_kernel(tmp_path / "kernel")
    daemon.library.max_parts = 4
    result = ctl(daemon, "kernels", "upload", str(tmp_path / "kernel"), "--wait")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{name[:12]}  OFFERED")
    daemon.library.judgement = pb.KERNEL_STATE_QUARANTINED
    daemon.library.offer(name)
    again = ctl(daemon, "kernels", "upload", str(tmp_path / "kernel"), "--wait")
    assert again.exit_code == 1
    assert "is QUARANTINED, not offered" in again.stderr


def test_somebody_elses_kernel_is_vouched_for_only_when_asked(daemon: SmallDaemon, tmp_path: Path) -> None:
    """A signature that is there goes along as it is; --sign puts the caller's in its place."""
    written_kernel(tmp_path / "kernel")
    (tmp_path / "kernel" / "manifest.sig.json").write_text(json.dumps({"key_id": "rival-1", "hmac": "00" * 32}))
    ctl(daemon, "kernels", "upload", str(tmp_path / "kernel"))
    ctl(daemon, "kernels", "upload", "--sign", str(tmp_path / "kernel"))
    assert list(dict.fromkeys(one.key_id for one in daemon.library.signatures)) == ["rival-1", "operator-1"]


def test_a_directory_without_a_kernel_is_told(daemon: SmallDaemon, tmp_path: Path) -> None:
    """Before anything is sent."""
    result = ctl(daemon, "kernels", "upload", str(tmp_path))
    assert result.exit_code == 1
    assert "E-CLI-004" in result.stderr


def test_a_library_that_has_changed_is_told(daemon: SmallDaemon, tmp_path: Path) -> None:
    """Also where the daemon has the kernel already and would be sent none of its bytes."""
    written_kernel(tmp_path / "kernel")
    assert ctl(daemon, "kernels", "upload", str(tmp_path / "kernel")).exit_code == 0
    library = next((tmp_path / "kernel").glob("*.so"))
    library.write_bytes(library.read_bytes()[:-1] + b"?")
    result = ctl(daemon, "kernels", "upload", "--sign", str(tmp_path / "kernel"))
    assert result.exit_code == 1
    assert f"{library.name} is not what the manifest says" in result.stderr


def test_a_download_can_be_uploaded(daemon: SmallDaemon, tmp_path: Path) -> None:
    """The same bytes come back."""
    name = written_kernel(tmp_path / "kernel")
    ctl(daemon, "kernels", "upload", str(tmp_path / "kernel"))
    result = ctl(daemon, "kernels", "download", name[:8], "-o", str(tmp_path / "back"))
    assert result.exit_code == 0, result.stderr
    for path in (tmp_path / "kernel").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_a_damaged_kernel_is_an_error(kernels: SmallDaemon) -> None:
    """For one and for all, and every finding is told."""
    assert ctl(kernels, "kernels", "verify", NAME[:8]).exit_code == 0
    kernels.library.findings = ["forward is another library"]
    result = ctl(kernels, "kernels", "verify", "--all")
    assert result.exit_code == 1
    assert result.stdout.count("DAMAGED: forward is another library") == 2
    assert ctl(kernels, "kernels", "verify").exit_code == 2


def test_kernels_are_kept_and_removed(kernels: SmallDaemon) -> None:
    """By the first characters of their names."""
    assert "pinned" in ctl(kernels, "kernels", "pin", NAME[:6]).stdout
    assert "pinned" not in ctl(kernels, "kernels", "unpin", NAME).stdout
    assert "REMOVED" in ctl(kernels, "kernels", "delete", NAME[:6], "--reason", "old").stdout
    assert kernels.library.removed == [NAME]
    assert "E-KRN-001" in ctl(kernels, "kernels", "show", NAME[:6]).stderr


def test_a_seed_is_given_a_kernel(kernels: SmallDaemon) -> None:
    """Or its eager module; one of the two must be said."""
    result = ctl(kernels, "seed", "kernel", "1", NAME[:6], "--wait", "--reason", "try")
    assert result.exit_code == 0, result.stderr
    assert ctl(kernels, "seed", "kernel", "1", "--eager").exit_code == 0
    assert ctl(kernels, "seed", "kernel", "1").exit_code == 2
    first, second = kernels.asked
    assert (first.target_seed_id, first.kernel_swap.artifact_id, first.reason) == ("1", NAME, "try")
    assert second.kernel_swap.artifact_id == ""
    assert "seed 1 by kernel abababababab" in ctl(kernels, "command", "list").stdout


def test_a_seed_is_shown_with_its_kernel(kernels: SmallDaemon) -> None:
    """With its name, or why there is none; options may come first, as they always could."""
    kernels.seeds[0].kernel_artifact_id = NAME
    assert NAME in ctl(kernels, "seed", "-o", "table", "1").stdout
    assert NAME[:12] in ctl(kernels, "seeds").stdout
    kernels.seeds[0].kernel_artifact_id = ""
    kernels.seeds[0].kernel_note = "none is offered"
    assert "none, runs its eager module: none is offered" in ctl(kernels, "seed", "1").stdout


def test_changes_are_followed(kernels: SmallDaemon) -> None:
    """Everything as it is, and what changes."""
    kernels.library.close()
    lines = ctl(kernels, "kernels", "watch").stdout
    assert f"{NAME[:12]}  OFFERED  residual_mlp 16 float32 batch 1-64" in lines
