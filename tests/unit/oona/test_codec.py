"""Values to JSON and back."""

import dataclasses
import json
import math

from esperd.leyline.views import GateResult, NoticeEvent
from esperd.leyline.vocabulary import Gate, Verdict
from esperd.oona.codec import from_json, to_json
from esperd.oona.records import HistoryRecord
from tests.unit.oona import samples


def test_every_kind_of_record_comes_back_equal() -> None:
    """Nested evidence, enums, bytes, mappings and numbers that JSON does not know survive."""
    records: list[HistoryRecord] = [
        samples.transition(),
        samples.notice(),
        samples.emergency(),
        samples.field_report(),
        samples.run_started(),
        samples.run_finished(),
        samples.run_resumed(),
        samples.checkpoint(),
        samples.timeline(),
    ]
    for record in records:
        assert from_json(type(record), to_json(record)) == record


def test_the_text_is_strict_json_with_readable_names() -> None:
    """Any JSON reader can read it: enums by name, no bare NaN or Infinity."""
    gate = GateResult(Gate.G2_STABILITY, Verdict.UNMEASURED, 5)
    event = dataclasses.replace(samples.transition(), gate=gate, unix_s=math.nan)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    plain = json.loads(to_json(event), parse_constant=refuse)
    assert (plain["source"], plain["gate"]["gate"], plain["unix_s"]) == ("TRAINING", "G2_STABILITY", "nan")


def test_newer_and_older_rows_can_be_read() -> None:
    """A field that is not known is ignored, a missing one takes its default, None stays None."""
    plain = json.loads(to_json(samples.notice()))
    del plain["attributes"]
    plain["added_later"] = 1
    assert from_json(NoticeEvent, json.dumps(plain)).attributes == {}
    without_gate = dataclasses.replace(samples.transition(), gate=None)
    assert from_json(type(without_gate), to_json(without_gate)) == without_gate
