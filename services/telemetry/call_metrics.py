"""Metrics of completions. A call moves each once, at its end, and none per chunk.

Labels are bounded. `model` and `channel` come from the configuration, never from a caller; the
others are enumerations of this package and of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from services.common.plain_metrics import ByLabels, PlainMetrics
from services.telemetry.calls import ABORTED, ENDS, REPLAYED, CallRecord

AUTH_FAILURES = frozenset({"INVALID_API_KEY", "KEY_EXPIRED", "KEY_REVOKED", "AUTH_UNAVAILABLE"})
IDEMPOTENCY: Mapping[str, str] = {
    "IDEMPOTENCY_IN_PROGRESS": "busy",
    "IDEMPOTENCY_MISMATCH": "mismatch",
}

LATENCY_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
DURATION_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
TOKEN_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)


class UsageTotals(msgspec.Struct, gc=False):
    """Usage of all calls of one model at one channel. Tokens contain their parts."""

    prompt: int = 0
    cache_read: int = 0
    cache_write: int = 0
    completion: int = 0
    thinking: int = 0
    charge_nano: int = 0

    def by_kind(self) -> Mapping[str, int]:
        """Return the parts of the tokens that have a price each, without those they contain."""
        return {
            "prompt": self.prompt - self.cache_read - self.cache_write,
            "cache_read": self.cache_read,
            "cache_write": self.cache_write,
            "completion": self.completion - self.thinking,
            "thinking": self.thinking,
        }


class CallMetrics:
    """Metrics of completions: how they ended, what they asked of providers, what they used."""

    def __init__(self, counters: PlainMetrics) -> None:
        self.attempts = AttemptMetrics(counters)
        self.usage = UsageMetrics(counters)
        self.requests = counters.counter(
            "requests_total",
            "Calls that have ended. `reason` is empty for a success, `model` for an unknown model.",
            "method", "model", "code", "reason",
        )  # fmt: skip
        self.stream_ends = counters.counter("stream_ends_total", "How streams ended.", "end")
        self.durations = counters.histogram(
            "request_duration_seconds", "From a call's arrival to its end.", DURATION_S, "method"
        )
        self.refused = counters.counter(
            "requests_refused_total", "Calls that were refused before any channel was asked.",
            "reason",
        )  # fmt: skip
        self.auth_failures = counters.counter(
            "auth_failures_total", "Calls whose key was not accepted.", "reason"
        )
        self.idempotent_requests = counters.counter(
            "idempotent_requests_total",
            "Calls with the idempotency key of an earlier call: replay, busy, mismatch; joined: "
            "equal to a call of their session.",
            "outcome",
        )
        for end in ENDS:
            # A rate needs a zero to start from.
            _ = self.stream_ends[(end,)]

    def observe(self, record: CallRecord) -> None:
        """Count a call that has ended."""
        method, reason = record.method, record.reason
        self.requests[method, record.model, record.code, reason].value += 1
        self.durations[(method,)].observe(record.ended_at - record.opened_at)
        if method == "stream":
            self.stream_ends[(record.end,)].value += 1
        if record.attempts:
            self.attempts.observe(record)
        elif reason and record.end != ABORTED:
            self.refused[(reason,)].value += 1
        if reason:
            self._observe_failure(record)
        elif record.end == REPLAYED:
            outcome = "joined" if record.is_joined else "replay"
            self.idempotent_requests[(outcome,)].value += 1
        self.usage.observe(record)

    def _observe_failure(self, record: CallRecord) -> None:
        reason = record.reason
        if reason in AUTH_FAILURES and not record.key_id:
            # With an ID it was accepted, and revoked while the call ran.
            self.auth_failures[(reason,)].value += 1
        if outcome := IDEMPOTENCY.get(reason):
            self.idempotent_requests[(outcome,)].value += 1


class AttemptMetrics:
    """Metrics of the requests to providers that calls made."""

    def __init__(self, counters: PlainMetrics) -> None:
        self.attempts = counters.counter(
            "upstream_attempts_total", "Requests to providers.", "channel"
        )
        self.errors = counters.counter(
            "upstream_errors_total", "Requests that a provider failed.", "channel", "reason"
        )
        self.retries = counters.counter(
            "upstream_retries_total", "Requests to providers beyond the first of a call."
        )[()]
        self.time_to_first_token = counters.histogram(
            "time_to_first_token_seconds", "From a call's arrival to the beginning of its answer.",
            LATENCY_S, "model",
        )  # fmt: skip

    def show(self, targets: Iterable[tuple[str, str]]) -> None:
        """Show the attempts on the channels of these (channel, model) pairs from zero on."""
        for channel, _ in targets:
            _ = self.attempts[(channel,)]

    def observe(self, record: CallRecord) -> None:
        """Count the attempts of a call that has ended."""
        for attempt in record.attempts:
            self.attempts[(attempt.channel,)].value += 1
            if attempt.reason:
                self.errors[attempt.channel, attempt.reason].value += 1
        if len(record.attempts) > 1:
            self.retries.value += len(record.attempts) - 1
        if record.begun_at:
            ttft_s = record.begun_at - record.opened_at
            self.time_to_first_token[(record.model,)].observe(ttft_s)


class UsageMetrics:
    """Metrics of the tokens that calls used, and of their cost."""

    def __init__(self, counters: PlainMetrics) -> None:
        self.totals: ByLabels[UsageTotals] = ByLabels(UsageTotals)
        """By model and channel."""
        counters.observable_counters(
            "tokens_total", "Tokens that were billed; each kind without the others.",
            ("model", "channel", "kind"), self._tokens,
        )  # fmt: skip
        counters.observable_counters(
            "cost_nano_usd_total", "Charged amount in nano-USD.",
            ("model", "channel"), self._charges,
        )  # fmt: skip
        self.flags = counters.counter(
            "usage_flags_total", "Usage figures of providers that were corrected.", "flag"
        )
        self.settlements = counters.counter(
            "settlements_total", "Holds that ended, by how: settled or voided.", "outcome"
        )
        self.time_per_output_token = counters.histogram(
            "time_per_output_token_seconds", "Mean time between tokens of a stream.",
            TOKEN_S, "model",
        )  # fmt: skip

    def observe(self, record: CallRecord) -> None:
        """Count what a call cost: at its end or, where its answer was drained, later."""
        if record.settlement:
            self.settlements[(record.settlement,)].value += 1
        usage = record.usage
        if usage is None:
            return
        totals = self.totals[record.model, record.channel]
        totals.prompt += usage.prompt_token_count
        totals.cache_read += usage.cache_read_token_count
        totals.cache_write += usage.cache_write_token_count
        totals.completion += usage.completion_token_count
        totals.thinking += usage.thinking_token_count
        totals.charge_nano += record.charge_nano
        for flag in record.flags:
            self.flags[(flag,)].value += 1
        if record.method == "stream" and (gap_s := record.token_gap_s) is not None:
            self.time_per_output_token[(record.model,)].observe(gap_s)

    def _tokens(self) -> Iterator[tuple[Sequence[str], float]]:
        for labels, totals in self.totals.items():
            for kind, tokens in totals.by_kind().items():
                if tokens:
                    yield (*labels, kind), tokens

    def _charges(self) -> Iterator[tuple[Sequence[str], float]]:
        for labels, totals in self.totals.items():
            if totals.charge_nano:
                yield labels, totals.charge_nano
