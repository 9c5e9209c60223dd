"""Agreement of log lines and metrics about the same calls.

They are two accounts of the same calls, kept apart, and the books are a third: here they are held
against each other and against what clients got.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client.registry import Collector

from gateway.telemetry.request_observer import PROBES

Line = Mapping[str, Any]
REQUEST, REFUSED, CALL, DRAIN = "request.ended", "request.refused", "call.ended", "call.drained"
CALL_LABELS = ("method", "model", "code", "reason")
ERRORS = frozenset({"error", "critical"})
OPERATORS_FAULTS = frozenset({"config.refused"})
"""Error events that any test may cause. Faults of clients and providers are no errors."""


class Answered(Protocol):
    """A response as a client read it."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers."""

    @property
    def code(self) -> str | None:
        """The error's code; None for a success."""


def samples(registry: Collector, name: str) -> Iterator[tuple[Mapping[str, str], int]]:
    """The labels and values of a counter that has moved."""
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name == f"pomogator_{name}" and sample.value:
                yield sample.labels, round(sample.value)


def by(registry: Collector, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """Increments of a counter, by these labels."""
    counted: Counter[tuple[str, ...]] = Counter()
    for found, value in samples(registry, name):
        counted[tuple(found[label] for label in labels)] += value
    return counted


class LogAndMetrics:
    """Log lines and metrics of one gateway."""

    def __init__(self, texts: Sequence[str], service: Collector, edge: Collector) -> None:
        self._lines: Sequence[Line] = [json.loads(text) for text in texts]
        self._service = service
        self._edge = edge

    def of(self, event: str) -> Sequence[Line]:
        """The lines of that event."""
        return [line for line in self._lines if line["event"] == event]

    def agree(
        self, answers: Collection[Answered], expected: Collection[str] = OPERATORS_FAULTS
    ) -> None:
        """Check that each request and call has one line and one count, and errors are expected.

        `answers` are the clients' responses: the log has each with its ID, status and code.
        """
        self._requests_agree()
        self._calls_agree()
        told = Counter((line["request_id"], line["status"]) for line in self.of(REQUEST))
        got = Counter((each.headers["x-request-id"], each.status) for each in answers)
        assert got <= told, got - told
        said = {(line["request_id"], line.get("code")) for line in self.of(REQUEST)}
        for each in answers:
            assert each.code is None or (each.headers["x-request-id"], each.code) in said
        errors = {line["event"] for line in self._lines if line["level"] in ERRORS}
        assert errors <= set(expected)

    def charges(self) -> Mapping[str, int]:
        """The cost of calls by the log, by account."""
        charges: Counter[str] = Counter()
        for line in (*self.of(CALL), *self.of(DRAIN)):
            charges[line["account"]] += line["charge_nano_usd"]
        assert charges.total() == by(self._service, "cost_nano_usd_total")[()]
        return {account: charge for account, charge in charges.items() if charge}

    def _requests_agree(self) -> None:
        told = Counter(
            (str(line["status"]),) for line in self.of(REQUEST) if line["path"] not in PROBES
        )
        assert told == by(self._edge, "edge_requests_total", "status")

    def _calls_agree(self) -> None:
        calls = self.of(CALL)
        told = Counter(tuple(line[label] for label in CALL_LABELS) for line in calls)
        assert told == by(self._service, "requests_total", *CALL_LABELS)
        ends = Counter((line["end"],) for line in calls if line["method"] == "stream")
        assert ends == by(self._service, "stream_ends_total", "end")
        attempts = sum(line["attempts"] for line in calls)
        assert attempts == by(self._service, "upstream_attempts_total")[()]
        rejected = Counter(
            (line["reason"],) for line in calls if line["reason"] and not line["attempts"]
        )
        # Where there is no room for one more call it is refused before it is one.
        known = {line["request_id"] for line in calls}
        unread = [line for line in self.of(REQUEST) if line.get("code") == "overloaded"]
        rejected["OVERLOADED",] += sum(line["request_id"] not in known for line in unread)
        rejected["OVERLOADED",] -= by(self._edge, "edge_calls_refused_total")[()]
        assert rejected == by(self._service, "requests_refused_total", "reason")
