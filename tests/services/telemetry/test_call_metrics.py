from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.common.metrics_page import serving_metrics
from services.common.process_metrics import ProcessMetrics
from services.domain.usage import Usage
from services.telemetry.call_metrics import CallMetrics
from services.telemetry.calls import Attempt, CallRecord


def record(**known: object) -> CallRecord:
    """The record of a stream of one second, with these fields changed."""
    fields: dict[str, object] = {
        "request_id": "r",
        "method": "stream",
        "opened_at": 1.0,
        "begun_at": 1.5,
        "ended_at": 2.0,
        "end": "stop",
        "model": "house/model",
        **known,
    }
    return CallRecord(**fields)  # type: ignore[arg-type]


class Observed(CallMetrics):
    """Metrics of completions, on the page of a process."""

    def __init__(self) -> None:
        self.process = ProcessMetrics("1.2.3")
        super().__init__(self.process.counters)

    def take(self, record: CallRecord) -> None:
        """Take a call that has ended, to be counted with others."""
        self.ended.add(record, at_once=False)

    def value(self, name: str, **labels: str) -> float | None:
        """A sample's value; None where there is none."""
        return self.process.registry.get_sample_value(f"pomogator_{name}", labels)


def test_tokens_are_counted_once() -> None:
    """The kinds of a usage add up to its total."""
    usage = Usage(
        prompt_token_count=100,
        cache_read_token_count=30,
        cache_write_token_count=20,
        completion_token_count=50,
        thinking_token_count=40,
        total_token_count=150,
    )

    metrics = Observed()
    metrics.take(record(usage=usage, channel="house"))

    kinds = ("prompt", "cache_read", "cache_write", "completion", "thinking")
    labels = {"model": "house/model", "channel": "house"}
    counts = {kind: metrics.value("tokens_total", kind=kind, **labels) for kind in kinds}
    assert counts == {
        "prompt": 50,
        "cache_read": 30,
        "cache_write": 20,
        "completion": 10,
        "thinking": 40,
    }


@pytest.mark.parametrize(
    ("attempts", "retries", "errors"),
    [
        ([Attempt("a", "m")], 0.0, None),
        ([Attempt("a", "m", "UPSTREAM_ERROR"), Attempt("b", "m")], 1.0, 1.0),
        ([Attempt("a", "m", "UPSTREAM_ERROR"), Attempt("a", "m", "UPSTREAM_ERROR")], 1.0, 2.0),
    ],
)
def test_attempts_and_failures_are_counted(
    attempts: Sequence[Attempt], retries: float, errors: float | None
) -> None:
    """Each attempt is counted by channel, each failure by reason, too."""
    metrics = Observed()

    metrics.take(record(attempts=list(attempts)))

    assert metrics.value("upstream_retries_total") == retries
    failed = metrics.value("upstream_errors_total", channel="a", reason="UPSTREAM_ERROR")
    assert failed == errors


@pytest.mark.parametrize(
    ("reason", "known", "count"),
    [
        ("INVALID_API_KEY", {}, 1.0),
        ("KEY_EXPIRED", {}, 1.0),
        ("KEY_REVOKED", {}, 1.0),
        ("AUTH_UNAVAILABLE", {}, 1.0),
        ("KEY_REVOKED", {"key_id": "key-1", "begun_at": 1.5}, None),
        ("KEY_REVOKED", {"key_id": "key-1", "attempts": [Attempt("a", "m")]}, None),
        ("RATE_LIMIT_EXCEEDED", {"key_id": "key-1"}, None),
    ],
)
def test_refused_keys_are_counted(
    reason: str, known: Mapping[str, object], count: float | None
) -> None:
    """A key that was revoked during its call was valid before, and is not counted."""
    metrics = Observed()

    metrics.take(record(**{"begun_at": 0.0, "end": "refused", "reason": reason, **known}))

    assert metrics.value("auth_failures_total", reason=reason) == count


@pytest.mark.parametrize("calls", [1, 2, 301])
def test_calls_that_are_counted_together_are_all_counted(calls: int) -> None:
    """However many there are before the metrics are read, of whatever kinds, and once each."""
    metrics = Observed()
    usage = Usage(prompt_token_count=3, completion_token_count=11, thinking_token_count=4)
    attempts, models = [Attempt("a", "m")], ("house/model", "house/other")
    for number in range(calls):
        model = models[number % 3 == 0]
        metrics.take(
            record(model=model, channel="a", attempts=attempts, usage=usage, settlement="settled")
        )

    for _ in range(2):
        by_model = [
            metrics.value("requests_total", method="stream", model=model, code="OK", reason="")
            for model in models
        ]
        others = (calls + 2) // 3
        assert by_model == [(calls - others) or None, others]
        assert metrics.value("request_duration_seconds_count", method="stream") == calls
        assert metrics.value("request_duration_seconds_sum", method="stream") == calls
        assert metrics.value("stream_ends_total", end="stop") == calls
        assert metrics.value("settlements_total", outcome="settled") == calls
        assert metrics.value("upstream_attempts_total", channel="a") == calls
        labels = {"model": "house/other", "channel": "a"}
        assert metrics.value("tokens_total", kind="completion", **labels) == 7 * others
        latencies = ("time_to_first_token_seconds_sum", "time_per_output_token_seconds_sum")
        sums = [metrics.value(name, model="house/other") for name in latencies]
        assert sums == pytest.approx([0.5 * others, 0.05 * others])


def test_a_replay_is_not_a_request_to_a_provider() -> None:
    """It is counted as a replay, and has no latency."""
    metrics = Observed()

    metrics.take(record(end="replayed", begun_at=0.0))

    assert metrics.value("idempotent_requests_total", outcome="replay") == 1
    assert metrics.value("time_to_first_token_seconds_count", model="house/model") is None


async def ready() -> bool:
    """Calls are taken."""
    return True


async def test_the_page_is_text_or_openmetrics() -> None:
    """The client chooses. Other paths are 404."""
    process = ProcessMetrics("1.2.3")
    process.counters.observable_gauge("calls_in_flight", "In-flight calls.", lambda: 7)
    async with (
        serving_metrics(process.registry, "127.0.0.1:0", ready) as bound,
        aiohttp.ClientSession() as http,
    ):
        async with http.get(f"http://{bound}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            families = {
                family.name: family
                for family in text_string_to_metric_families(await answer.text())
            }
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with http.get(f"http://{bound}/metrics", headers=accept) as answer:
            assert (await answer.text()).endswith("# EOF\n")
        async with http.get(f"http://{bound}/") as answer:
            assert answer.status == 404

    assert families["pomogator_calls_in_flight"].samples[0].value == 7
    assert families["pomogator_build_info"].samples[0].labels == {"version": "1.2.3"}
    assert "process_resident_memory_bytes" in families
