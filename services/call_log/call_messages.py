"""Rows and sums of the call log as messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import msgspec
from google.protobuf.duration_pb2 import Duration
from pomogator.calls.v1 import call_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from services.accounts.proto_fields import int64, timestamp
from services.call_log.call_scope import CallScope
from services.storage.call_rows import CallRow
from services.storage.call_sums import BOUNDS_MS, CallSums, Group

_ATTEMPTS = msgspec.json.Decoder(list[tuple[str, str, str, int]])
_NOTES = msgspec.json.Decoder(list[tuple[str, str]])
_TAGS = msgspec.json.Decoder(dict[str, str])

FIELDS: Mapping[str, str] = {"call_end": "end"}
"""Fields of a group by the names that it is grouped by, where they differ."""


def call_message(row: CallRow, scope: CallScope, *, whole: bool = False) -> pb.Call:
    """Return a call as its reader may see it; `whole` with its attempts and notes."""
    call = pb.Call(
        call_id=row.id,
        request_id=row.request_id,
        completion_id=row.completion_id,
        create_time=timestamp(row.at_ms),
        account=row.account,
        key_id=row.key_id,
        surface=row.surface,
        streamed=bool(row.streamed),
        model=row.model,
        served_model=row.served_model,
        attempt_count=row.attempt_count,
        end=row.call_end,
        reason=row.reason,
        http_status=row.http_status,
        first_token_duration=None if row.ttft_ms is None else _duration(row.ttft_ms),
        total_duration=_duration(row.total_ms),
        prompt_token_count=row.prompt_tokens,
        completion_token_count=row.completion_tokens,
        thinking_token_count=row.thinking_tokens,
        cache_read_token_count=row.cache_read_tokens,
        cache_write_token_count=row.cache_write_tokens,
        usage_source=row.source,
        charge_nano_usd=row.charge,
        hold_nano_usd=row.hold,
        end_user=row.end_user,
        session_id=row.session,
        tags=tags_of(row),
        trace_id=row.trace_id,
        note_count=row.note_count,
        usage_flags=row.flags.split(",") if row.flags else (),
    )
    if scope.is_operator:
        call.channel, call.hold_id = row.channel, row.hold_id
        call.provider_cost_nano_usd = row.cost
    if whole:
        call.attempts.extend(_attempts(row, scope))
        call.notes.extend(_notes(row))
    return call


def tags_of(row: CallRow) -> Mapping[str, str]:
    """Return the labels of a call."""
    return _TAGS.decode(row.tags) if row.tags else {}


def group_message(
    group: Group, sums: CallSums, dimensions: Sequence[str], scope: CallScope
) -> pb.CallGroup:
    """Return the sums of a group."""
    start_ms, names = group
    prompt, completion, thinking, cache_read, cache_write = sums.tokens
    message = pb.CallGroup(
        start_time=timestamp(start_ms) if start_ms else None,
        call_count=sums.calls,
        failure_count=sums.failures,
        prompt_token_count=int64(prompt),
        completion_token_count=int64(completion),
        thinking_token_count=int64(thinking),
        cache_read_token_count=int64(cache_read),
        cache_write_token_count=int64(cache_write),
        charge_nano_usd=int64(sums.money[0]),
        first_token_durations=_quantiles(sums.ttft),
        total_durations=_quantiles(sums.total),
    )
    if scope.is_operator:
        message.provider_cost_nano_usd = int64(sums.money[1])
    for column, name in zip(dimensions, names, strict=True):
        setattr(message, FIELDS.get(column, column), name)
    return message


def _attempts(row: CallRow, scope: CallScope) -> Sequence[pb.CallAttempt]:
    if not row.attempts:
        return ()
    return [
        pb.CallAttempt(
            channel=channel if scope.is_operator else "",
            upstream_model=model if scope.is_operator else "",
            reason=reason,
            start_offset=_duration(offset_ms),
        )
        for channel, model, reason, offset_ms in _ATTEMPTS.decode(row.attempts)
    ]


def _notes(row: CallRow) -> Sequence[pb.CallNote]:
    if not row.notes:
        return ()
    return [
        pb.CallNote(param=param, action=chat.NoteAction.Value(f"NOTE_ACTION_{action.upper()}"))
        for param, action in _NOTES.decode(row.notes)
    ]


def _duration(milliseconds: int) -> Duration:
    message = Duration()
    message.FromMilliseconds(milliseconds)
    return message


def _quantiles(buckets: Sequence[int]) -> pb.DurationQuantiles | None:
    """Return quantiles of a histogram. None: it has no values."""
    cumulated = list(accumulate(buckets))
    if not cumulated[-1]:
        return None
    found = [_duration(_quantile(cumulated, percent)) for percent in (50, 95, 99)]
    return pb.DurationQuantiles(p50=found[0], p95=found[1], p99=found[2])


def _quantile(cumulated: Sequence[int], percent: int) -> int:
    rank = -(-cumulated[-1] * percent // 100)
    index = next(index for index, count in enumerate(cumulated) if count >= rank)
    return BOUNDS_MS[min(index, len(BOUNDS_MS) - 1)]
