"""Records of calls that have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from services.domain.usage import Usage
from services.telemetry.call_tracing import NO_HEADERS
from services.telemetry.calls import CallLog, CallRecord


def ended_record(number: int = 0, **facts: Any) -> CallRecord:
    """Return the record of a call of `acme` that was refused before its hold."""
    record = CallRecord(request_id=f"req-{number}", method="create", opened_at=1.0)
    record.key_id, record.account, record.model = "key-1", "acme", "house/model"
    record.end, record.reason, record.code = "refused", "RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"
    record.ended_at = 1.25
    for name, value in facts.items():
        setattr(record, name, value)
    return record


def settled_record(number: int, hold_id: str, charge_nano: int, **facts: Any) -> CallRecord:
    """Return the record of a call that was charged for a hold."""
    record = ended_record(number, end="stop", reason="", code="OK", **facts)
    record.settlement, record.charge_nano, record.begun_at = "settled", charge_nano, 1.1
    record.usage = Usage(prompt_token_count=3, completion_token_count=2, total_token_count=5)
    record.facts.hold_id = hold_id
    return record


@contextmanager
def recorded(
    log: CallLog,
    request_id: str,
    method: str,
    time_left_s: Callable[[], float | None],
    metadata: Mapping[str, str] = NO_HEADERS,
) -> Iterator[CallRecord]:
    """Record the call within."""
    record = log.begin(request_id, method, metadata)
    try:
        yield record
    except BaseException as error:
        log.end(record, error, time_left_s)
        raise
    log.end(record, None, time_left_s)
