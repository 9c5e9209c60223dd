"""Row of a call, from its record."""

from __future__ import annotations

from collections.abc import Sequence
from random import getrandbits

import msgspec

from services.common.call_names import GRPC_SURFACE, SURFACES
from services.domain.error_reason import ErrorReason
from services.domain.events import Note
from services.domain.http_statuses import HTTP_STATUSES
from services.domain.usage import Usage
from services.storage.call_rows import CallRow
from services.telemetry.call_facts import NAME_CHARS_MAX
from services.telemetry.calls import CLIENT_GONE, DEADLINE, CallRecord

ID_BITS = 80
"""Random bits of an ID, beside its time. IDs are no secrets: each is bound to its account."""

PARAM_CHARS_MAX = 128
"""The most characters of the name of a parameter in a note."""

_NO_USAGE = Usage()
_encode = msgspec.json.Encoder().encode


def row_of(record: CallRecord, wall_offset_s: float) -> CallRow:
    """Return the row of a call that has ended, and whose hold has ended.

    `wall_offset_s` is the time since 1970 less the clock's `now()`.
    """
    facts, usage = record.facts, record.usage or _NO_USAGE
    at_ms = facts.hold_ms or int((record.opened_at + wall_offset_s) * 1000)
    end, reason, ended_at = record.end or CLIENT_GONE, str(record.reason), record.ended_at
    if facts.caller_end is not None:
        end, _, reason, ended_at = facts.caller_end
    ttft_s = record.ttft_s
    return CallRow(
        at_ms=at_ms,
        id=f"call-{at_ms:011x}{getrandbits(ID_BITS):020x}",
        request_id=record.request_id,
        completion_id=facts.completion_id,
        account=record.account,
        key_id=record.key_id,
        surface=facts.surface if facts.surface in SURFACES else GRPC_SURFACE,
        streamed=int(record.method == "stream"),
        model=record.model,
        served_model=facts.served_model,
        channel=record.channel,
        attempts=_encode(record.attempts).decode() if record.attempts else "",
        attempt_count=len(record.attempts),
        call_end=end,
        reason=reason,
        http_status=_http_status(record, end, reason),
        ttft_ms=None if ttft_s is None else round(ttft_s * 1000),
        total_ms=max(0, round((ended_at - record.opened_at) * 1000)),
        prompt_tokens=usage.prompt_token_count,
        completion_tokens=usage.completion_token_count,
        thinking_tokens=usage.thinking_token_count,
        cache_read_tokens=usage.cache_read_token_count,
        cache_write_tokens=usage.cache_write_token_count,
        source=usage.source,
        flags=",".join(record.flags),
        charge=record.charge_nano,
        cost=facts.cost_nano,
        hold=record.hold_nano,
        hold_id=facts.hold_id,
        end_user=_text(facts.end_user) if facts.end_user else "",
        session=_text(facts.session) if facts.session else "",
        tags=_encode(facts.tags).decode() if facts.tags else "",
        trace_id=record.spans.trace_id if record.spans else "",
        notes=_notes(facts.notes) if facts.notes else "",
        note_count=facts.note_count,
    )


def _notes(notes: Sequence[Note]) -> str:
    return _encode([(_text(note.param)[:PARAM_CHARS_MAX], note.action) for note in notes]).decode()


def _http_status(record: CallRecord, end: str, reason: str) -> int:
    if reason:
        return HTTP_STATUSES[ErrorReason(reason)]
    if end == DEADLINE:
        return HTTP_STATUSES[ErrorReason.DEADLINE]
    # Without an answer or a failure the caller was gone before there was a status.
    return 200 if record.begun_at or record.replayed else 0


def _text(text: str) -> str:
    """Return a caller's text, fit for databases and terminals."""
    if text.isprintable():
        return text[:NAME_CHARS_MAX]
    return "".join(each if each.isprintable() else "?" for each in text[:NAME_CHARS_MAX])
