"""Metrics of completions. A call moves each once, after its end, and none per chunk.

Labels are bounded. `model` and `channel` come from the configuration, never from a caller; the
others are enumerations of this package and of the contract.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter

import msgspec

from services.common.plain_metrics import ByLabels, PlainMetrics
from services.telemetry.calls import ABORTED, ENDS, REPLAYED, CallRecord
from services.telemetry.ended_calls import EndedCalls

AUTH_FAILURES = frozenset({"INVALID_API_KEY", "KEY_EXPIRED", "KEY_REVOKED", "AUTH_UNAVAILABLE"})
IDEMPOTENCY: Mapping[str, str] = {
    "IDEMPOTENCY_IN_PROGRESS": "busy",
    "IDEMPOTENCY_MISMATCH": "mismatch",
}

LATENCY_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
DURATION_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
TOKEN_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)

_labels_of = attrgetter("method", "model", "code", "reason", "end", "channel", "settlement")
_PROMPT, _COMPLETION, _THINKING, _CACHE_READ, _CACHE_WRITE = (
    attrgetter(f"usage.{part}_token_count")
    for part in ("prompt", "completion", "thinking", "cache_read", "cache_write")
)


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
        self.ended = EndedCalls(self._count)
        """Takes the calls, which are counted together."""
        counters.before_reading.append(self.ended.deliver)
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

    def refusals(self) -> Mapping[str, int]:
        """Return how many calls were refused before any channel was asked, by reason."""
        self.ended.deliver()
        return {reason: int(one.value) for (reason,), one in self.refused.items() if one.value}

    def _count(self, ended: Sequence[CallRecord]) -> None:
        alike = defaultdict[tuple[str, ...], list[CallRecord]](list)
        for record in ended:
            alike[_labels_of(record)].append(record)
            if record.reason:
                self._count_failure(record)
            elif record.end == REPLAYED:
                outcome = "joined" if record.is_joined else "replay"
                self.idempotent_requests[(outcome,)].value += 1
        for (method, model, code, reason, end, *_), records in alike.items():
            self.requests[method, model, code, reason].value += len(records)
            self.durations[(method,)].observe_all(
                [each.ended_at - each.opened_at for each in records]
            )
            if method == "stream":
                self.stream_ends[(end,)].value += len(records)
            self.attempts.count(model, records)
            self.usage.count(records)

    def _count_failure(self, record: CallRecord) -> None:
        reason = record.reason
        if not record.attempts and record.end != ABORTED:
            self.refused[(reason,)].value += 1
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

    def count(self, model: str, records: Sequence[CallRecord]) -> None:
        """Count the attempts of calls of one model that have ended."""
        tried = [record for record in records if record.attempts]
        attempts = [attempt for record in tried for attempt in record.attempts]
        for channel, number in Counter([attempt.channel for attempt in attempts]).items():
            self.attempts[(channel,)].value += number
        for attempt in attempts:
            if attempt.reason:
                self.errors[attempt.channel, attempt.reason].value += 1
        self.retries.value += len(attempts) - len(tried)
        if times_s := [each.begun_at - each.opened_at for each in tried if each.begun_at]:
            self.time_to_first_token[(model,)].observe_all(times_s)


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

    def count(self, records: Sequence[CallRecord]) -> None:
        """Count what calls cost that are alike: at their end or, where it is known later, then."""
        one = records[0]
        if one.settlement:
            self.settlements[(one.settlement,)].value += len(records)
        used = [record for record in records if record.usage is not None]
        if not used:
            return
        totals = self.totals[one.model, one.channel]
        totals.prompt += sum(map(_PROMPT, used))
        totals.cache_read += sum(map(_CACHE_READ, used))
        totals.cache_write += sum(map(_CACHE_WRITE, used))
        totals.completion += sum(map(_COMPLETION, used))
        totals.thinking += sum(map(_THINKING, used))
        totals.charge_nano += sum([record.charge_nano for record in used])
        for flag in chain.from_iterable([record.flags for record in used]):
            self.flags[(flag,)].value += 1
        if one.method == "stream":
            gaps_s = [gap_s for record in used if (gap_s := record.token_gap_s) is not None]
            if gaps_s:
                self.time_per_output_token[(one.model,)].observe_all(gaps_s)

    def _tokens(self) -> Iterator[tuple[Sequence[str], float]]:
        for labels, totals in self.totals.items():
            for kind, tokens in totals.by_kind().items():
                if tokens:
                    yield (*labels, kind), tokens

    def _charges(self) -> Iterator[tuple[Sequence[str], float]]:
        for labels, totals in self.totals.items():
            if totals.charge_nano:
                yield labels, totals.charge_nano
