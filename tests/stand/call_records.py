"""Records of calls that have ended."""

from __future__ import annotations

from typing import Any

from services.domain.usage import Usage
from services.telemetry.calls import CallRecord


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
