"""The digest of a blueprint's source: of its package, or of its module alone, as the files are."""

import functools
import hashlib
import importlib
import sys
from pathlib import Path

import pytest
from torch import nn

from esperd.kasmina.blueprints import registry
from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor
from esperd.kasmina.blueprints.source import SourceUnknownError, source_sha256
from esperd.leyline.vocabulary import BlueprintTier


def descriptor(factory: object) -> BlueprintDescriptor:
    return BlueprintDescriptor("own", "Own", "", BlueprintTier.SAFE, 0.1, frozenset({2}), factory)  # type: ignore[arg-type]


def test_all_standard_blueprints_share_the_digest_of_their_package():
    """Names, sizes and contents of all its modules, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(Path(registry.__file__).parent.glob("*.py")):
        data = path.read_bytes()
        digest.update(f"{path.name}\0{len(data)}\0".encode() + data)
    assert {source_sha256(one) for one in registry.standard_registry()} == {digest.hexdigest()}


def test_a_module_without_a_package_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file beside it is no part of it; a factory with arguments bound is still of its module."""
    text = "from torch import nn\n\ndef make(shape, parameters, bias=True):\n    return nn.Linear(*shape, bias)\n"
    (tmp_path / "own_blueprint_a.py").write_text(text)
    (tmp_path / "neighbour.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    make = importlib.import_module("own_blueprint_a").make
    expected = hashlib.sha256(f"own_blueprint_a.py\0{len(text)}\0{text}".encode()).hexdigest()
    assert source_sha256(descriptor(make)) == expected
    assert source_sha256(descriptor(functools.partial(make, bias=False))) == expected
    del sys.modules["own_blueprint_a"]


def test_what_has_no_file_has_no_digest(monkeypatch: pytest.MonkeyPatch):
    """Then no kernel can be bound to it, and its seeds run eager."""

    def make(_shape: object, _parameters: object) -> nn.Module:
        return nn.Identity()

    monkeypatch.setattr(make, "__module__", "made_at_a_prompt")
    with pytest.raises(SourceUnknownError, match="made_at_a_prompt"):
        source_sha256(descriptor(make))
