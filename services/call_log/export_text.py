"""Exports of calls as CSV (RFC 4180) and as one JSON object a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
from pomogator.calls.v1 import call_service_pb2 as pb

from services.call_log.call_messages import tags_of
from services.call_log.call_scope import CallScope
from services.storage.call_rows import CallRow

DurationsField: TypeAlias = Literal["first_token_durations", "total_durations"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # noqa: RUF001
"""Beginnings of a text that spreadsheets take for a formula, some of them also in full width
(https://owasp.org/www-community/attacks/CSV_Injection)."""


def _quantile(field: DurationsField, quantile: str, group: pb.CallGroup) -> int | None:
    """Return a quantile of durations in milliseconds. None: no call has such a duration."""
    if not group.HasField(field):
        return None
    milliseconds: int = getattr(getattr(group, field), quantile).ToMilliseconds()
    return milliseconds


DURATIONS: Sequence[DurationsField] = ("first_token_durations", "total_durations")


def _own(*names: str) -> Mapping[str, Callable[[Any], Any]]:
    """Return columns with the names of the fields that they show."""
    return {name: attrgetter(name) for name in names}


COLUMNS: Mapping[str, Callable[[CallRow], Any]] = {
    "call_id": lambda row: row.id,
    "create_time_ms": lambda row: row.at_ms,
    **_own("request_id", "completion_id", "account", "key_id", "surface"),
    "streamed": lambda row: bool(row.streamed),
    **_own("model", "served_model", "attempt_count"),
    "end": lambda row: row.call_end,
    **_own("reason", "http_status"),
    "first_token_ms": lambda row: row.ttft_ms,
    "total_ms": lambda row: row.total_ms,
    "prompt_token_count": lambda row: row.prompt_tokens,
    "completion_token_count": lambda row: row.completion_tokens,
    "thinking_token_count": lambda row: row.thinking_tokens,
    "cache_read_token_count": lambda row: row.cache_read_tokens,
    "cache_write_token_count": lambda row: row.cache_write_tokens,
    "usage_source": lambda row: row.source,
    "charge_nano_usd": lambda row: row.charge,
    "hold_nano_usd": lambda row: row.hold,
    "end_user": lambda row: row.end_user,
    "session_id": lambda row: row.session,
    "tags": tags_of,
    "trace_id": lambda row: row.trace_id,
}
"""Columns of an export, by the names of the contract."""

OPERATOR_COLUMNS: Mapping[str, Callable[[CallRow], Any]] = {
    "channel": lambda row: row.channel,
    "provider_cost_nano_usd": lambda row: row.cost,
    "hold_id": lambda row: row.hold_id,
}


SUMS_COLUMNS: Mapping[str, Callable[[pb.CallGroup], Any]] = {
    "start_time_ms": lambda group: (
        group.start_time.ToMilliseconds() if group.HasField("start_time") else None
    ),
    **_own(
        *("account", "key_id", "model", "end", "end_user", "tag_name", "tag_value"),
        *("call_count", "failure_count", "prompt_token_count", "completion_token_count"),
        *("thinking_token_count", "cache_read_token_count", "cache_write_token_count"),
        "charge_nano_usd",
    ),
    **{
        f"{field.removesuffix('_durations')}_{quantile}_ms": partial(_quantile, field, quantile)
        for field in DURATIONS
        for quantile in ("p50", "p95", "p99")
    },
}
"""Columns of an export of sums, by the names of the contract."""

OPERATOR_SUMS_COLUMNS = _own("channel", "provider_cost_nano_usd")


class ExportText(NamedTuple):
    """Form of an export."""

    mime_type: str
    head: Callable[[Sequence[str]], bytes]
    """Returns the beginning, for the names of the columns."""
    lines: Callable[[Sequence[str], Iterable[Sequence[Any]]], bytes]
    """Returns the lines of rows, for these names and the values of each row."""


def columns_of(scope: CallScope) -> Mapping[str, Callable[[CallRow], Any]]:
    """Return the columns that a reader may see."""
    return {**COLUMNS, **OPERATOR_COLUMNS} if scope.is_operator else COLUMNS


def sums_columns_of(scope: CallScope) -> Mapping[str, Callable[[pb.CallGroup], Any]]:
    """Return the columns of sums that a reader may see."""
    return {**SUMS_COLUMNS, **OPERATOR_SUMS_COLUMNS} if scope.is_operator else SUMS_COLUMNS


def _csv_lines(_names: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue().encode()


def _csv_head(names: Sequence[str]) -> bytes:
    return _csv_lines(names, [names])


def _cell(value: object) -> object:
    if isinstance(value, dict):
        value = ",".join(f"{name}={text}" for name, text in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _json_lines(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    return msgspec.json.Encoder().encode_lines(objects)


FORMATS: Mapping[pb.ExportFormat.ValueType, ExportText] = {
    pb.EXPORT_FORMAT_UNSPECIFIED: ExportText("text/csv", _csv_head, _csv_lines),
    pb.EXPORT_FORMAT_CSV: ExportText("text/csv", _csv_head, _csv_lines),
    pb.EXPORT_FORMAT_NDJSON: ExportText("application/x-ndjson", lambda _: b"", _json_lines),
}
