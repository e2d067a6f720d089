"""A manifest is read exactly as it was written, or not at all."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.manifest import FORMAT, FileEntry, Manifest, from_json, strict_json, to_json
from tests.unit.oona.checkpoints.samples import DRAFT

ENTRY = FileEntry("model.safetensors", 12, "0" * 64)
WHOLE = replace(DRAFT, files=(ENTRY, FileEntry("state.json", 0, "ab" * 32)))


def refusal_of(data: bytes) -> EsperdError:
    with pytest.raises(EsperdError) as caught:
        from_json(data, "t001-s000000500")
    return caught.value


def reason_of(data: bytes) -> str:
    return refusal_of(data).reason


def with_field(name: str, value: Any) -> bytes:
    """Well-formed, so that only the rule for this field can refuse it before the hash does."""
    return json.dumps(json.loads(to_json(WHOLE)) | {name: value}).encode()


def test_a_manifest_survives_a_round_trip() -> None:
    """Every field comes back equal, kinds and files as their own types."""
    assert from_json(to_json(WHOLE), WHOLE.checkpoint_id) == WHOLE
    assert WHOLE.num_bytes == 12


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    kind=st.sampled_from([kind for kind in CheckpointKind if kind.value]),
    numbers=st.lists(st.integers(0, 2**70), min_size=3, max_size=3),
    seconds=st.floats(0, 1e12),
    note=st.text(),
    config=st.dictionaries(st.text(), JSON, max_size=4),
)
def test_any_manifest_survives_a_round_trip(
    kind: CheckpointKind, numbers: list[int], seconds: float, note: str, config: dict[str, Any]
) -> None:
    """Numbers of any size, any text and any configuration come back as they were."""
    manifest = replace(
        WHOLE,
        kind=kind,
        timeline=numbers[0],
        global_step=numbers[1],
        sequence=numbers[2],
        written_unix_s=seconds,
        note=note,
        config=config,
    )
    assert from_json(to_json(manifest), manifest.checkpoint_id) == manifest


def test_another_format_is_told_apart_from_damage() -> None:
    """A manifest of a later build is CHECKPOINT_VERSION, whatever else is in it; no format at all is damage."""
    assert reason_of(with_field("format", FORMAT + 1)) == "CHECKPOINT_VERSION"
    assert reason_of(b'{"format": 2, "something": "new"}') == "CHECKPOINT_VERSION"
    assert reason_of(b"{}") == "CHECKPOINT_CORRUPT"
    assert reason_of(with_field("format", "1")) == "CHECKPOINT_CORRUPT"
    assert reason_of(with_field("format", True)) == "CHECKPOINT_CORRUPT"


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest)])
def test_every_field_must_be_there_and_of_its_type(name: str) -> None:
    """A missing field is damage, and so is each of the wrong types: null, a list of numbers, a negative number."""
    without = json.loads(to_json(WHOLE))
    del without[name]
    error = refusal_of(json.dumps(without).encode())
    assert (error.reason, error.metadata["detail"]) == ("CHECKPOINT_CORRUPT", f"its manifest lacks the field {name}")
    for wrong in (None, [1], -1, -0.5, True):
        error = refusal_of(with_field(name, wrong))
        assert error.metadata["detail"] == f"the field {name} of its manifest is not valid", wrong


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unknown", 1),
        ("global_step", 1.0),
        ("kind", "UNSPECIFIED"),
        ("kind", "scheduled"),
        ("kind", 1),
        ("run_id", "../other"),
        ("run_id", ".hidden"),
        ("run_id", ""),
        ("checkpoint_id", "a/b"),
        ("files", [{"name": "a/b", "num_bytes": 1, "sha256": "0" * 64}]),
        ("files", [{"name": "..", "num_bytes": 1, "sha256": "0" * 64}]),
        ("files", [{"name": "manifest.json", "num_bytes": 1, "sha256": "0" * 64}]),
        ("files", [{"name": "a", "num_bytes": -1, "sha256": "0" * 64}]),
        ("files", [{"name": "a", "num_bytes": True, "sha256": "0" * 64}]),
        ("files", [{"name": "a", "num_bytes": 1, "sha256": "0" * 63}]),
        ("files", [{"name": "a", "num_bytes": 1, "sha256": "G" * 64}]),
        ("files", [{"name": "a", "num_bytes": 1, "sha256": "0" * 64, "mode": 1}]),
        ("files", [{"name": "a", "num_bytes": 1}]),
        ("files", [{"name": "a", "num_bytes": 1, "sha256": "0" * 64}] * 2),
        ("files", ["a"]),
    ],
)
def test_what_is_not_exactly_right_is_damage(name: str, value: Any) -> None:
    """Unknown fields, words outside the set, paths instead of names, files listed twice."""
    error = refusal_of(with_field(name, value))
    assert error.reason == "CHECKPOINT_CORRUPT"
    assert f"field {name}" in error.metadata["detail"]


def test_no_turned_bit_goes_unseen() -> None:
    """Each bit of the file, one at a time: damage, also where the text would still be a right manifest."""
    data = bytearray(to_json(WHOLE))
    for index in range(len(data)):
        for bit in range(8):
            data[index] ^= 1 << bit
            assert reason_of(bytes(data)) in ("CHECKPOINT_CORRUPT", "CHECKPOINT_VERSION")
            data[index] ^= 1 << bit


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"format": 1, "format": 1}',
        b"[" * 100_000,
        to_json(WHOLE).replace(b"1.5", b"NaN"),
        to_json(WHOLE).replace(b"1.5", b"Infinity"),
        to_json(WHOLE).replace(b"1.5", b"1e999"),
        to_json(WHOLE).replace(b'"epoch": 4', b'"epoch": 4, "epoch": 5'),
        to_json(WHOLE).replace(b'"epoch": 4', b'"epoch": ' + b"4" * 5000),
        to_json(WHOLE)[:-20],
    ],
)
def test_what_is_no_strict_json_is_damage(data: bytes) -> None:
    """Half a file, keys that come twice, NaN and infinity, nesting and numbers without end."""
    assert reason_of(data) == "CHECKPOINT_CORRUPT"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_damage(data: bytes) -> None:
    """Whatever the bytes, the answer is an error of the catalogue."""
    assert reason_of(data) in ("CHECKPOINT_CORRUPT", "CHECKPOINT_VERSION")


@pytest.mark.parametrize(
    "change",
    [{"global_step": -1}, {"pause_ms": float("nan")}, {"run_id": "a/b"}, {"config": {"x": float("inf")}}],
)
def test_nothing_is_written_that_could_not_be_read(change: dict[str, Any]) -> None:
    """Writing applies the rules of reading."""
    with pytest.raises(ValueError):
        to_json(replace(WHOLE, **change))


def test_strict_json_keeps_numbers_exact() -> None:
    """Large integers and every finite float come back as they were."""
    assert strict_json(b"[123456789012345678901234567890, 0.1, -0.0, 5e-324]") == [
        123456789012345678901234567890,
        0.1,
        -0.0,
        5e-324,
    ]
