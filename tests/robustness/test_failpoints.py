"""Failpoints cannot be switched on in what is installed: only a test's own code, inside the process, can do it."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.robustness.crashing_daemon import Crash, make_hook, parse, split

REPOSITORY = Path(__file__).parents[2]
PACKAGES = (REPOSITORY / "esperd", REPOSITORY / "clients" / "esper")
FAILPOINTS = REPOSITORY / "esperd" / "leyline" / "failpoints.py"


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]


def _names(path: Path) -> set[str]:
    """Every name, attribute and imported name in a module, and every string that could be one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                found.add(name.rpartition(".")[2])
            case ast.Constant(value=str(text)) if text.isidentifier():
                found.add(text)
    return found


def test_nothing_in_the_packages_sets_a_hook() -> None:
    """No module but the definition knows `set_hook`, not even as a string for getattr."""
    users = [path for path in _sources() if path != FAILPOINTS and _names(path) & {"set_hook"}]
    assert users == []


def test_modules_import_failpoint_alone() -> None:
    """Whoever passes failpoints imports the one function, so that the module cannot be reached through it."""
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "esperd.leyline.failpoints":
                assert [alias.name for alias in node.names] == ["failpoint"], path
            if isinstance(node, ast.Import):
                assert all(alias.name != "esperd.leyline.failpoints" for alias in node.names), path


def test_the_definition_reads_no_environment_and_no_file() -> None:
    """The module that holds the hook imports nothing but types, so nothing from outside reaches it."""
    tree = ast.parse(FAILPOINTS.read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported == ["collections.abc"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert not _names(FAILPOINTS) & {"os", "environ", "getenv", "open", "argv"}


def test_no_name_of_a_failpoint_is_a_setting() -> None:
    """Neither a setting nor an option of the command line speaks of failpoints."""
    for path in (REPOSITORY / "esperd" / "config").glob("*.py"):
        assert "failpoint" not in path.read_text().lower()
    for path in (REPOSITORY / "esperd" / "cli").rglob("*.py"):
        assert "failpoint" not in path.read_text().lower()


def test_the_wheel_holds_no_tests_and_no_installer_of_hooks(tmp_path: Path) -> None:
    """The built wheel has our two packages only, and no file of it sets a hook."""
    names = _wheel_sources(tmp_path)
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert tops == {"esperd", "esper"}
    assert "esperd/leyline/failpoints.py" in names
    setters = [name for name, text in names.items() if "set_hook" in text]
    assert setters == ["esperd/leyline/failpoints.py"]


def _wheel_sources(tmp_path: Path) -> dict[str, str]:
    """The text of every Python file in the wheel that the build backend makes of this tree."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("esperd", "clients", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(REPOSITORY / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, env={**os.environ}, check=False
    )
    if done.returncode and "No module named 'setuptools'" in done.stderr:
        pytest.skip("the build backend is not installed")
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}


def test_a_crash_is_told_on_the_command_line() -> None:
    """What the arguments say is what was meant."""
    crash = Crash("checkpoint.writing", 3, "kill", 2, "germinate-1", "apply.after", terminates=True)
    own, rest = split([*crash.arguments(), "--", "serve", "x.toml"])
    assert parse(own) == crash
    assert rest == ["serve", "x.toml"]


def test_a_hook_acts_at_its_own_failpoint_and_pass_only() -> None:
    """Other places are passed freely; the second pass is the one that was asked for; a prefix stands for its parts."""
    hook = make_hook(Crash("checkpoint.writing", hit=2, action="enospc"))
    hook("journal.before_fsync")
    hook("checkpoint.writing.host")
    with pytest.raises(OSError, match="No space left"):
        hook("checkpoint.writing.seeds")
    hook("checkpoint.writing.seeds")


def test_a_hook_waits_for_the_command_that_arms_it() -> None:
    """Armed when a command with that reason passes; before that nothing happens."""
    hook = make_hook(Crash("apply.after", action="eio", armed_by="second"))

    def settle(command: object) -> None:
        hook("apply.before")
        hook("apply.after")

    class Command:
        def __init__(self, reason: str) -> None:
            self.reason = reason

    settle(Command("first"))
    with pytest.raises(OSError, match="Input/output"):
        settle(Command("second"))
