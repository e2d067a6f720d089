"""What `esper tezzeret compile` takes, and what it refuses before anything is compiled."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from esper.tezzeret.by_hand import compile_by_hand

from esperd.leyline.kernel_documents import MANIFEST_NAME


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["residual_mlp", "--site-spec", "8"], "no shape"),
        (["residual_mlp", "--site-spec", "0x8"], "no shape"),
        (["residual_mlp", "--site-spec", "8x-8"], "no shape"),
        (["residual_mlp", "--site-spec", "8x8,dtype=int8"], "neither dtype=T"),
        (["residual_mlp", "--site-spec", "8x8,layout=odd"], "neither dtype=T"),
        (["residual_mlp", "--site-spec", "8x8", "--batch", "0"], "--batch"),
        (["residual_mlp", "--site-spec", "8x8", "-p", "expansion"], "NAME=NUMBER"),
        (["residual_mlp", "--site-spec", "8x8", "-p", "expansion=nan"], "NAME=NUMBER"),
        (["residual_mlp", "--site-spec", "8x8", "--strategy", "bold"], "--strategy"),
    ],
)
def test_bad_usage(arguments: list[str], told: str, tmp_path: Path) -> None:
    """What cannot be understood is bad usage, said in one line."""
    done = CliRunner().invoke(compile_by_hand, [*arguments, "-o", str(tmp_path)])
    assert done.exit_code == 2
    assert told in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["residual_mpl", "--site-spec", "8x8"], "no blueprint 'residual_mpl'"),
        (["residual_mlp", "--site-spec", "8x8x8"], "2 dimensions"),
        (["residual_mlp", "--site-spec", "8x8", "-p", "expansion=99"], "from 1 to 16"),
        (["residual_mlp", "--site-spec", "8x8", "-p", "width=9"], "no parameter 'width'"),
    ],
)
def test_refusals(arguments: list[str], told: str, tmp_path: Path) -> None:
    """What the blueprint refuses is told in its words, and leaves nothing behind."""
    done = CliRunner().invoke(compile_by_hand, [*arguments, "-o", str(tmp_path / "kernel")])
    assert done.exit_code == 1
    assert told in done.output
    assert not (tmp_path / "kernel" / MANIFEST_NAME).exists()


def test_a_kernel_is_not_overwritten(tmp_path: Path) -> None:
    """A directory that holds a kernel is left as it is."""
    (tmp_path / MANIFEST_NAME).write_bytes(b"kept")
    done = CliRunner().invoke(compile_by_hand, ["residual_mlp", "--site-spec", "8x8", "-o", str(tmp_path)])
    assert done.exit_code == 1
    assert "a kernel already" in done.output
    assert (tmp_path / MANIFEST_NAME).read_bytes() == b"kept"


def test_a_key_file_is_read_before_compiling(tmp_path: Path) -> None:
    """A key that cannot be used is found out at once, not after a minute of compiling."""
    arguments = ["residual_mlp", "--site-spec", "8x8", "--key", str(tmp_path / "none.key"), "-o", str(tmp_path / "k")]
    done = CliRunner().invoke(compile_by_hand, arguments)
    assert done.exit_code == 1
    assert "none.key" in done.output


def test_no_compiler_is_told_before_compiling(tmp_path: Path) -> None:
    """What cannot succeed is not begun, and no other strategy is advised."""
    arguments = ["residual_mlp", "--site-spec", "8x8", "-o", str(tmp_path / "k")]
    done = CliRunner(env={"CXX": "no-such-compiler"}).invoke(compile_by_hand, arguments)
    assert done.exit_code == 1
    assert "there is no C++ compiler no-such-compiler" in done.output
    assert "conservative" not in done.output
