"""The tables of `esperctl checkpoint`."""

import json
from collections.abc import Sequence

from esper.ctl import words
from esper.ctl.output import columns, moment, pairs, size
from esper.leyline.v1 import checkpoint_service_pb2, state_pb2


def page_of(page: checkpoint_service_pb2.ListCheckpointsResponse, all_runs: bool) -> str:
    """A page of checkpoints, the states in memory, and what is damaged."""
    blocks = [rows_of(page.checkpoints, "no checkpoints", with_run=all_runs)]
    if page.memory_points:
        blocks.append("in memory:\n" + "\n".join(f"  {_memory(point)}" for point in page.memory_points))
    if page.damaged:
        blocks.append(
            "DAMAGED, never used:\n" + "\n".join(f"  {one.checkpoint_id}: {one.problem}" for one in page.damaged)
        )
    if page.next_page_token:
        blocks.append(f"more with --page-token {page.next_page_token}")
    return "\n".join(blocks)


def rows_of(found: Sequence[checkpoint_service_pb2.Checkpoint], empty: str, *, with_run: bool = False) -> str:
    """One line for each checkpoint."""
    header: tuple[str, ...] = ("CHECKPOINT", "KIND", "TIMELINE", "STEP", "EPOCH", "GOOD", "SIZE", "WRITTEN", "NOTE")
    rows: list[tuple[object, ...]] = [
        (
            one.checkpoint_id,
            words.checkpoint_kind(one.kind),
            one.timeline,
            one.global_step,
            one.epoch,
            one.is_good,
            size(one.num_bytes),
            moment(one.write_time),
            one.note,
        )
        for one in found
    ]
    if with_run:
        rows = [(one.run_id, *row) for one, row in zip(found, rows, strict=True)]
        header = ("RUN", *header)
    return columns(header, rows, empty)


def _memory(point: state_pb2.RestorePoint) -> str:
    good = "good" if point.is_good else "not good yet"
    disk = f", also {point.checkpoint_id}" if point.checkpoint_id else ""
    return f"step {point.global_step} of timeline {point.timeline}, {good}, {size(point.num_bytes)}{disk}"


def details(answer: checkpoint_service_pb2.GetCheckpointResponse) -> str:
    """One checkpoint with its files and settings."""
    one = answer.checkpoint
    rows: list[tuple[str, object]] = [
        ("checkpoint", one.checkpoint_id),
        ("kind", words.checkpoint_kind(one.kind)),
        ("run", one.run_id),
        ("task", one.task),
        ("state", f"step {one.global_step} of timeline {one.timeline}, epoch {one.epoch}"),
        ("good", one.is_good),
        ("note", one.note),
        ("written", f"{moment(one.write_time)}, training stood still for {one.pause_ms:.1f} ms"),
        ("parameters", one.num_parameters),
        ("last outcome", one.sequence),
        ("versions", f"esperd {one.esperd_version}, torch {one.torch_version}"),
        ("directory", answer.directory),
        ("size", size(one.num_bytes)),
    ]
    files = [(f"  {entry.name}", size(entry.num_bytes), entry.sha256) for entry in answer.files]
    settings = json.loads(answer.config_json or "{}")
    told = [(f"  [{name}]", json.dumps(value)) for name, value in settings.items()]
    return "\n".join(
        [pairs(rows), "files:", columns(("  FILE", "SIZE", "SHA-256"), files, "  none"), "settings:", pairs(told)]
    )


def pruned(answer: checkpoint_service_pb2.PruneCheckpointsResponse, what: str) -> str:
    """What went, or will."""
    if not answer.removed:
        return f"nothing to remove; {answer.num_kept} stay"
    total = size(sum(one.num_bytes for one in answer.removed))
    return f"{rows_of(answer.removed, '')}\n{len(answer.removed)} {what} ({total}); {answer.num_kept} stay"
