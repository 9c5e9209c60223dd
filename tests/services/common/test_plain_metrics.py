from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from services.common.plain_metrics import PlainMetrics


def test_the_page_is_the_one_of_the_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and histograms are shown, line by line, as the library shows its own."""
    monkeypatch.setattr("prometheus_client.metrics._use_created", False)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counters, bounds = PlainMetrics("a", ours), (0.05, 1.0, 2.5)
    count = counters.counter("calls_total", "Calls.", "method", "code")
    durations = counters.histogram("call_seconds", "How long.", bounds, "method")
    counter = Counter("a_calls_total", "Calls.", ("method", "code"), registry=theirs)
    histogram = Histogram(
        "a_call_seconds", "How long.", ("method",), buckets=bounds, registry=theirs
    )

    for labels, amount in ((("create", "OK"), 1), (("stream", ""), 2.5), (("create", "OK"), 3)):
        count[labels].value += amount
        counter.labels(*labels).inc(amount)
    for seconds in (0.0, 0.05, 0.06, 2.5, 7.0):
        durations[("create",)].observe(seconds)
        histogram.labels("create").observe(seconds)

    assert generate_latest(ours) == generate_latest(theirs)


def test_a_counter_is_shown_with_zero_once_it_was_asked_for() -> None:
    """A rate needs a zero to start from; other labels are not shown."""
    registry = CollectorRegistry()
    count = PlainMetrics("a", registry).counter("ends_total", "Ends.", "end")

    assert registry.get_sample_value("a_ends_total", {"end": "stop"}) is None
    assert count[("stop",)].value == 0
    assert registry.get_sample_value("a_ends_total", {"end": "stop"}) == 0
