"""The way up for numbers: never waits, may drop, never loses count."""

import threading

from esperd.bridge.telemetry_ring import TelemetryRing


def test_the_oldest_samples_go_and_are_counted():
    """A reader that is late gets the newest samples and the number of those it missed."""
    ring = TelemetryRing(3)
    for step in range(5):
        ring.emit(("loss", 0, step, 0.0, 0))
    samples, num_dropped = ring.take()
    assert [sample[2] for sample in samples] == [2, 3, 4]
    assert num_dropped == 2
    assert ring.take() == ([], 0)


def test_a_take_may_be_limited():
    """What is left stays in order for the next take."""
    ring = TelemetryRing(10)
    for step in range(4):
        ring.emit(("loss", 0, step, 0.0, 0))
    assert [sample[2] for sample in ring.take(3)[0]] == [0, 1, 2]
    assert [sample[2] for sample in ring.take(3)[0]] == [3]


def test_under_load_every_sample_is_taken_or_counted():
    """With a writer and a reader at full speed the sum of taken and dropped is what was emitted, and order holds."""
    ring = TelemetryRing(64)
    num_samples = 100_000
    writer = threading.Thread(target=lambda: [ring.emit(("loss", 0, step, 0.0, 0)) for step in range(num_samples)])
    writer.start()
    steps: list[int] = []
    num_dropped = 0
    while writer.is_alive():
        samples, dropped = ring.take()
        steps += [sample[2] for sample in samples]
        num_dropped += dropped
    samples, dropped = ring.take()
    steps += [sample[2] for sample in samples]
    assert len(steps) + num_dropped + dropped == num_samples
    assert steps == sorted(set(steps))
