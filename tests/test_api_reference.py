"""The API reference is the one that the protos and the error catalogue make, and leaves nothing out."""

import re
from typing import Any

import pytest
from esper.buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from esperd.leyline.errors import CATALOGUE
from esperd.leyline.method_policy import services
from tests.apidoc.__main__ import TARGET
from tests.apidoc.contract import read_contract
from tests.apidoc.pages import api_page
from tests.apidoc.rules import field_rules

PAGE = TARGET.read_text()


def test_it_is_current() -> None:
    """`python -m tests.regenerate_protos` writes this very page."""
    assert api_page(read_contract()) == PAGE


def test_nothing_is_left_out() -> None:
    """Every service, every method, every reason; and every link leads somewhere."""
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    assert len(headings) == len(set(headings)), "two headings would have one anchor"
    for service in services():
        assert {service.name, *(method.name for method in service.methods)} <= set(headings)
    assert all(f"| `{reason}` | {entry.code} |" in PAGE for reason, entry in CATALOGUE.items())
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors


def test_everything_has_a_comment() -> None:
    """No empty cell where a meaning belongs: the page is as good as the protos' comments."""
    for file in read_contract():
        for message in file.messages:
            assert message.comment, message.name
            assert all(field.comment for field in message.fields), message.name
        for enum in file.enums:
            assert enum.comment, enum.name
            assert all(comment for _, _, comment in enum.values), enum.name


def rules(**given: Any) -> list[str]:
    """The words for the rules of one field."""
    field = FieldDescriptorProto(name="x")
    extension: Any = validate_pb2.field
    field.options.Extensions[extension].CopyFrom(validate_pb2.FieldRules(**given))
    return field_rules(field)


def test_rules_are_told_in_words() -> None:
    """Bounds, words, entries; what holds only for a value that is set says so."""
    pb: Any = validate_pb2
    assert rules(string=pb.StringRules(max_bytes=9), required=True) == ["required", "at most 9 bytes"]
    assert rules(uint32=pb.UInt32Rules(gte=1, lte=9)) == ["1 to 9"]
    assert rules(bytes=pb.BytesRules(min_len=16, max_len=32)) == ["16 to 32 bytes"]
    assert rules(string=pb.StringRules(**{"in": ["a", "b"]})) == ["one of `a`, `b`"]
    only_set: Any = {"ignore": pb.IGNORE_IF_ZERO_VALUE, "string": pb.StringRules(max_bytes=9)}
    assert rules(**only_set) == ["if set, at most 9 bytes"]
    inner = pb.FieldRules(string=pb.StringRules(min_len=1, max_bytes=9))
    repeated = pb.RepeatedRules(max_items=3, items=inner)
    assert rules(repeated=repeated) == ["at most 3 entries", "each not empty and at most 9 bytes"]


def test_a_rule_without_words_stops_the_generator() -> None:
    """Silence would read as: no rule."""
    with pytest.raises(SystemExit, match="uuid"):
        rules(string=validate_pb2.StringRules(uuid=True))
