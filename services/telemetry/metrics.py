"""Every metric of the service: its name, its labels, and when it moves.

Labels are bounded. `model` and `channel` come from the configuration, never from a
caller; the others are enumerations of ours. What a call moves, it moves once, at its
end (`Metrics.observe`), and never per chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from pomogator.chat.v1.usage_pb2 import Usage
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from services.common.process_metrics import PREFIX, ProcessMetrics
from services.telemetry.calls import ENDS, CallRecord

AUTH_FAILURES = frozenset({"INVALID_API_KEY", "KEY_EXPIRED", "KEY_REVOKED", "AUTH_UNAVAILABLE"})
IDEMPOTENCY: Mapping[str, str] = {
    "IDEMPOTENCY_IN_PROGRESS": "busy",
    "IDEMPOTENCY_MISMATCH": "mismatch",
}

LATENCY_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
DURATION_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
GAP_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)

# Parts of a usage that are priced apart. Each is counted without the parts it contains.
TOKENS: Mapping[str, Callable[[Usage], int]] = {
    "prompt": lambda usage: (
        usage.prompt_token_count - usage.cache_read_token_count - usage.cache_write_token_count
    ),
    "cache_read": lambda usage: usage.cache_read_token_count,
    "cache_write": lambda usage: usage.cache_write_token_count,
    "completion": lambda usage: usage.completion_token_count - usage.thinking_token_count,
    "thinking": lambda usage: usage.thinking_token_count,
}


class LedgerState(Protocol):
    """What is watched of a ledger."""

    @property
    def open_holds(self) -> int:
        """How many calls hold money."""

    @property
    def outbox_depth(self) -> int:
        """How many endings wait for the database."""

    @property
    def recovered(self) -> int:
        """How many holds were ended for processes that could not."""

    @property
    def broken_holds(self) -> int:
        """How many holds nobody can end."""


class Reading(Collector):
    """A counter that others keep, read when somebody looks."""

    def __init__(self, name: str, about: str, registry: CollectorRegistry) -> None:
        self._name = f"{PREFIX}_{name}"
        self._about = about
        self._read: Callable[[], float] = float
        registry.register(self)

    def set_function(self, read: Callable[[], float]) -> None:
        """Who keeps it."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Its value at this moment."""
        yield CounterMetricFamily(self._name, self._about, value=self._read())


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, *, version: str = "") -> None:
        process = ProcessMetrics(version)
        self.registry = registry = process.registry
        self.loop_lag, self.memory_used = process.loop_lag, process.memory_used
        counter, histogram = process.counters.counter, process.counters.histogram

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", about, labels, registry=registry)

        # What calls do.
        self.requests = counter(
            "requests_total",
            "Calls that are over. `reason` is empty where they succeeded, `model` where none of"
            " ours was asked for.",
            "method", "model", "code", "reason",
        )  # fmt: skip
        self.stream_ends = counter("stream_end_total", "How streams ended.", "end")
        self.durations = histogram(
            "request_seconds", "From a call's arrival to its end.", DURATION_S, "method"
        )
        self.ttft = histogram(
            "ttft_seconds", "From a call's arrival to its answer's beginning.", LATENCY_S, "model"
        )
        self.token_gaps = histogram(
            "token_gap_seconds", "A stream's mean time between tokens.", GAP_S, "model"
        )
        self.rejected = counter(
            "rejected_total", "Calls that were refused before any channel was asked.", "reason"
        )
        self.auth_failures = counter(
            "auth_failures_total", "Calls whose key was not accepted.", "kind"
        )
        self.idempotency = counter(
            "idempotency_total", "Calls that were asked for before: replay, busy, mismatch.", "kind"
        )
        # What providers do.
        self.attempts = counter("upstream_attempts_total", "Requests to providers.", "channel")
        self.upstream_errors = counter(
            "upstream_errors_total", "Requests that a provider failed.", "channel", "kind"
        )
        self.retries = Counter(
            f"{PREFIX}_retries_total", "Requests beyond a call's first.", registry=registry
        )
        self.breakers = gauge("breaker_state", "0 closed, 1 half-open, 2 open.", "channel", "model")
        self.retry_budget = gauge("retry_budget", "Retries that may be made at this moment.")
        # What it takes and costs.
        self.tokens = counter(
            "tokens_total",
            "Tokens that were billed; each kind without the others.",
            "model", "channel", "kind",
        )  # fmt: skip
        self.cost = counter("cost_nano_usd_total", "What was charged.", "model", "channel")
        self.usage_flags = counter(
            "usage_flags_total", "Usages of providers that were not believed as they were.", "flag"
        )
        self.holds_recovered = Reading(
            "holds_recovered_total", "Holds that were ended for processes that could not.", registry
        )
        self.settlements = counter("settle_total", "How holds ended that calls took.", "outcome")
        # How the process is doing.
        self.rpcs = counter(
            "rpcs_total", "Calls that are over and were no completions.", "method", "code"
        )
        self.storage_failures = Counter(
            f"{PREFIX}_storage_failures_total",
            "Transactions that the database did not take.",
            registry=registry,
        )
        self.storage_healthy = gauge(
            "storage_healthy", "1: the database took the latest transaction. 0: it did not."
        )
        self.reloads = counter(
            "config_reload_total", "Configurations that were read anew.", "result"
        )
        self.inflight = gauge("inflight", "Calls that are running.")
        self.calls_max = gauge(
            "calls_max", "Calls that are taken at a time: fewer while the process is overloaded."
        )
        self.limit_places = gauge(
            "limit_places", "Leases that hold a place of a limit on concurrent calls."
        )
        self.limit_stalls = gauge(
            "limit_stalls", "Calls that waited for the shared limits in vain, for 100 ms at most."
        )
        self.upstream_connections = gauge(
            "upstream_connections", "Connections to providers that carry a call."
        )
        self.drains = gauge("drains", "Answers that are read on although their callers have left.")
        self.holds_open = gauge("holds_open", "Calls of this process that hold money.")
        self.holds_broken = gauge(
            "holds_broken", "Holds that nobody can end as they stand in the database."
        )
        self.outbox_depth = gauge("outbox_depth", "Endings of holds that wait for the database.")
        self.task_failures = counter(
            "task_failures_total", "Failures of background tasks, which are begun again.", "task"
        )
        for end in ENDS:
            # A rate needs a zero to start from.
            _ = self.stream_ends[(end,)]

    def watch_ledger(self, ledger: LedgerState) -> None:
        """Shows how a ledger stands at the moment when somebody looks."""
        self.holds_open.set_function(lambda: ledger.open_holds)
        self.holds_broken.set_function(lambda: ledger.broken_holds)
        self.holds_recovered.set_function(lambda: ledger.recovered)
        self.outbox_depth.set_function(lambda: ledger.outbox_depth)

    def watch_channel(self, channel: str, model: str, state: Callable[[], int]) -> None:
        """Shows a channel's breaker, and its counters from zero on."""
        self.breakers.labels(channel, model).set_function(state)
        _ = self.attempts[(channel,)]

    def observe(self, record: CallRecord) -> None:
        """A call is over."""
        method, model, reason = record.method, record.model, record.reason
        self.requests[method, model, record.code, reason].inc()
        self.durations[(method,)].observe(record.ended_at - record.opened_at)
        if method == "stream":
            self.stream_ends[(record.end,)].inc()
        if record.attempts:
            self._observe_attempts(record)
        elif reason:
            self.rejected[(reason,)].inc()
        if reason in AUTH_FAILURES and not record.key_id:
            # With an ID it was accepted, and revoked while the call ran.
            self.auth_failures[(reason,)].inc()
        if kind := "replay" if record.replayed else IDEMPOTENCY.get(reason):
            self.idempotency[(kind,)].inc()
        self.observe_settlement(record)

    def observe_settlement(self, record: CallRecord) -> None:
        """What a call cost is known: at its end or, where its rest was read, later."""
        if record.settlement:
            self.settlements[(record.settlement,)].inc()
        if record.usage is not None:
            self._observe_usage(record, record.usage)

    def _observe_attempts(self, record: CallRecord) -> None:
        for attempt in record.attempts:
            self.attempts[(attempt.channel,)].inc()
            if attempt.reason:
                self.upstream_errors[attempt.channel, attempt.reason].inc()
        if len(record.attempts) > 1:
            self.retries.inc(len(record.attempts) - 1)
        ttft_s = record.ttft_s
        if ttft_s is not None:
            self.ttft[(record.model,)].observe(ttft_s)

    def _observe_usage(self, record: CallRecord, usage: Usage) -> None:
        where = (record.model, record.channel)
        for kind, count_of in TOKENS.items():
            if count := count_of(usage):
                self.tokens[(*where, kind)].inc(count)
        if record.charge_nano:
            self.cost[where].inc(record.charge_nano)
        for flag in record.flags:
            self.usage_flags[(flag,)].inc()
        gap_s = record.token_gap_s
        if gap_s is not None and record.method == "stream":
            self.token_gaps[(record.model,)].observe(gap_s)
