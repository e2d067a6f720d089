"""Looking up telemetry over the wire and on the command line."""

import json
import math

import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError

from tests.integration.control.stage import Theatre, eventually

LOSS, ALPHA = "tolaria.step.loss", "kasmina.seed.alpha"


async def kept(stage: Theatre, name: str, slot: int, step: int) -> None:
    """Wait until a sample, and so all before it, are in the window."""
    series = stage.server.parts.telemetry._window._series
    await eventually(lambda: (name, slot, 1) in series and series[(name, slot, 1)].steps[-1] == step)


async def trained(stage: Theatre) -> None:
    """A hundred steps of a loss, and of the alpha of one seed; nobody watches."""
    for step in range(1, 101):
        stage.bridge.emit((LOSS, 0, step, 1.0 / step, step))
        stage.bridge.emit((ALPHA, 1, step, step / 100, step))
    await kept(stage, ALPHA, 1, 100)


async def test_query_telemetry(stage: Theatre) -> None:
    """Names and prefixes, slots, steps and buckets as asked for; the oldest step that there is."""
    await trained(stage)
    async with AsyncClient(stage.address) as client:
        answer = await client.query_telemetry([LOSS, "kasmina.seed.*"], max_buckets=10)
        assert [(one.name, one.slot, one.timeline, len(one.buckets)) for one in answer.series] == [
            (ALPHA, 1, 1, 10),
            (LOSS, 0, 1, 10),
        ]
        bucket = answer.series[0].buckets[0]
        assert (bucket.first_step, bucket.last_step, bucket.num_samples) == (1, 10, 10)
        assert (bucket.minimum, bucket.maximum, round(bucket.mean, 9)) == (0.01, 0.1, 0.055)
        assert (answer.oldest_step, answer.num_dropped) == (1, 0)
        part = await client.query_telemetry([LOSS, ALPHA], slot=0, first_step=20, last_step=21)
        assert [(one.name, [b.first_step for b in one.buckets]) for one in part.series] == [(LOSS, [20, 21])]
        nothing = await client.query_telemetry(["tolaria.validation.loss"])
        assert (list(nothing.series), nothing.oldest_step) == ([], 0)


async def test_query_telemetry_refuses_what_it_does_not_know(stage: Theatre) -> None:
    """No metric, an unknown one, steps in the wrong order."""
    async with AsyncClient(stage.address) as client:
        for metrics, steps, reason in (
            ((), {}, "REQUEST_INVALID"),
            (("no.such",), {}, "METRIC_UNKNOWN"),
            ((LOSS,), {"first_step": 3, "last_step": 2}, "REQUEST_INVALID"),
            ((LOSS,), {"max_buckets": 1_000_000}, "REQUEST_INVALID"),
        ):
            with pytest.raises(LeylineError) as caught:
                await client.query_telemetry(metrics, **steps)
            assert caught.value.reason == reason


async def test_an_answer_stays_within_a_message(stage: Theatre) -> None:
    """With many series each has fewer buckets, so that the answer fits what clients accept."""
    for slot in range(200):
        for step in range(1, 301):
            stage.bridge.emit((ALPHA, slot, step, 0.5, step))
        await kept(stage, ALPHA, slot, 300)
    async with AsyncClient(stage.address) as client:
        answer = await client.query_telemetry([ALPHA], max_buckets=1000)
    assert len(answer.series) == 200
    assert all(50 < len(series.buckets) <= 100 for series in answer.series)
    assert answer.ByteSize() < 2 << 20


async def test_esperctl_telemetry_query(stage: Theatre) -> None:
    """A table with one row for each bucket, JSON for scripts; what is unknown is refused."""
    await trained(stage)
    stage.bridge.emit((LOSS, 0, 101, math.nan, 101))
    await kept(stage, LOSS, 0, 101)
    table = (await stage.ctl("telemetry", "--query", "--buckets", "2", LOSS)).stdout.splitlines()
    assert table[0].split() == ["METRIC", "SLOT", "TIMELINE", "STEPS", "SAMPLES", "LEAST", "MEAN", "GREATEST"]
    assert table[1].split() == [LOSS, "1", "1-51", "51", "0.01961", "0.0886", "1"]
    every = json.loads((await stage.ctl("telemetry", "--query", "-o", "json")).stdout)
    assert [series["name"] for series in every["series"]] == [ALPHA, LOSS]
    assert (await stage.ctl("telemetry", "--query", "--since", "500")).stdout == "nothing is kept of these\n"
    assert (await stage.ctl("telemetry", "--since", "5")).exit_code == 2
    assert (await stage.ctl("telemetry", "--query", "no.such")).exit_code == 1
