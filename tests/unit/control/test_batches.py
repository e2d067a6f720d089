"""A batch's commands keep their own signed bytes."""

import hashlib

import pytest
from esper.leyline.v1 import command_pb2, command_service_pb2, policy_service_pb2
from hypothesis import given
from hypothesis import strategies as st

from esperd.control.batches import MAX_COMMANDS, read_batch, read_decision, slices
from esperd.control.errors import InvalidRequest


def pause(request_id: str) -> command_pb2.AdaptationCommand:
    control = command_pb2.CommandRunControl(action=command_pb2.RUN_ACTION_PAUSE)
    return command_pb2.AdaptationCommand(request_id=request_id, run_control=control)


@given(st.lists(st.text(min_size=1, max_size=30), max_size=20))
def test_slices_are_the_commands_own_bytes(names: list[str]) -> None:
    """Whatever the lengths, each slice is what its command was serialised to."""
    parts = [pause(name).SerializeToString() for name in names]
    batch = command_service_pb2.CommandBatch(commands=[pause(name) for name in names])
    assert slices(batch.SerializeToString(), 1) == parts


def test_a_command_has_one_hash_alone_or_in_a_batch() -> None:
    """So that a retry in another batch is known as the same request."""
    batch = command_service_pb2.CommandBatch(commands=[pause("a"), pause("b")])
    found = read_batch(batch.SerializeToString())
    assert found[1].payload_sha256 == hashlib.sha256(pause("b").SerializeToString()).digest()


def test_commands_of_a_decision_are_named_after_it() -> None:
    """Their request ids may be left out; a decision id of another decision is refused."""
    command = pause("")
    decision = policy_service_pb2.PolicyDecision(decision_id="d", commands=[command, command], rationale="r" * 300)
    found = read_decision(decision.SerializeToString())
    assert [(one.asked.request_id, one.asked.decision_id) for one in found] == [("d/0", "d"), ("d/1", "d")]
    command.decision_id = "other"
    decision = policy_service_pb2.PolicyDecision(decision_id="d", commands=[command])
    with pytest.raises(InvalidRequest, match="decision_id"):
        read_decision(decision.SerializeToString())


def test_unknown_fields_are_stepped_over_and_groups_refused() -> None:
    """A newer client's fields do no harm; what no message of ours has is refused, not misread."""
    batch = command_service_pb2.CommandBatch(commands=[pause("a")]).SerializeToString()
    varint, fixed64, fixed32, text = (
        b"\xf8\x01\x85\x01",
        b"\xf9\x01" + bytes(8),
        b"\xfd\x01" + bytes(4),
        b"\xfa\x01\x02ab",
    )
    assert len(slices(varint + fixed64 + fixed32 + text + batch, 1)) == 1
    with pytest.raises(InvalidRequest):
        slices(b"\xfb\x01\xfc\x01" + batch, 1)


def test_too_many_are_refused() -> None:
    """A batch is bounded."""
    batch = command_service_pb2.CommandBatch(commands=[pause(str(i)) for i in range(MAX_COMMANDS + 1)])
    with pytest.raises(InvalidRequest, match="more than 256"):
        read_batch(batch.SerializeToString())
