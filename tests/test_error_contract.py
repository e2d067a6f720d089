"""The error catalogue as a contract: each reason can happen, and is met by a test that `reasons.toml` names.

A new reason needs a line there; a test that moves takes its line along.
"""

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

from esperd.leyline.errors import CATALOGUE

ROOT = Path(__file__).parent.parent
TABLES = ("esperd/leyline/errors.py", "esperd/control/errors.py")
"""Where every reason stands, whether anybody raises it or not."""

MET_BY: dict[str, str] = tomllib.loads((ROOT / "tests" / "reasons.toml").read_text())


def test_every_reason_has_a_test() -> None:
    """A reason without a test, or a line for a reason that is gone, is told by name."""
    assert sorted(set(CATALOGUE) - set(MET_BY)) == [], "reasons without a test"
    assert sorted(set(MET_BY) - set(CATALOGUE)) == [], "reasons that are gone"


@pytest.mark.parametrize("reason", sorted(MET_BY))
def test_the_named_test_meets_it(reason: str) -> None:
    """The test is there, and it, or a table or helper of its module that it uses, names the reason or its code."""
    name, _, function = MET_BY[reason].partition("::")
    tree = _tree(ROOT / "tests" / name)
    assert function in tree, f"{name} has no {function}"
    words = {reason, CATALOGUE[reason].code} if reason in CATALOGUE else {reason}
    assert words & _words(tree, function, frozenset()), f"{MET_BY[reason]} names neither {' nor '.join(sorted(words))}"


def test_every_reason_can_happen() -> None:
    """Nothing stands in the catalogue that no line of the product raises."""
    files = [path for folder in ("esperd", "clients") for path in (ROOT / folder).rglob("*.py")]
    said: set[str] = set()
    for path in files:
        if not str(path).endswith(TABLES) and not path.stem.endswith(("_pb2", "_pb2_grpc")):
            said |= {word for node in ast.walk(ast.parse(path.read_text())) for word in _said(node)}
    assert sorted(set(CATALOGUE) - said) == []


def test_codes_are_stable_names() -> None:
    """A code stands for one reason; both are written as they always were."""
    codes = [entry.code for entry in CATALOGUE.values()]
    assert len(set(codes)) == len(codes)
    for reason, entry in CATALOGUE.items():
        assert reason == reason.upper()
        area, number = entry.code.removeprefix("E-").split("-")
        assert area.isupper()
        assert number.isdigit()


@cache
def _tree(path: Path) -> dict[str, ast.stmt]:
    """What stands at the top of a module, by name."""
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(path.read_text()).body if path.exists() else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update({target.id: node for target in targets if isinstance(target, ast.Name)})
    return found


def _words(tree: dict[str, ast.stmt], name: str, seen: frozenset[str]) -> set[str]:
    """Every word in the strings of a function or table, and of what it uses of its own module."""
    nodes = list(ast.walk(tree[name]))
    words = {word for node in nodes for word in _said(node)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)} & set(tree) - seen - {name}
    for other in used:
        words |= _words(tree, other, seen | used | {name})
    return words


def _said(node: ast.AST) -> set[str]:
    """The words of a string: a reason stands alone, a code may stand in a pattern."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {word.strip(".,:;()[]^$") for word in node.value.split()}
    return set()
