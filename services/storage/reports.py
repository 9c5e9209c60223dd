"""Usage and transfers, as statements. Every statement selects one account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

import msgspec

from services.storage.base import Row, Transaction, Values
from services.storage.exact_sums import read_sums, sum_columns
from services.storage.hold_sums import CALLS, DAY_MS
from services.storage.sum_table import TOKENS

_AMOUNTS = (*TOKENS, "charge")
_SUMS = f"CAST(sum(calls) AS BIGINT), {sum_columns(*_AMOUNTS)}"
"""Columns with the number of calls and the sums of a `ModelUsage`, in its order."""

_ENDED = f"""
    SELECT created_ms / {DAY_MS} AS day, model, 1 AS calls, {", ".join(_AMOUNTS)}
    FROM holds WHERE account = ? AND created_ms >= ? AND created_ms < ? AND state <> 'held'
        AND extends = ''
    UNION ALL
    SELECT day, model, {CALLS}, {", ".join(_AMOUNTS)}
    FROM hold_sums WHERE account = ? AND day >= ? AND day < ?
"""  # noqa: S608  Constants of these modules.
USAGE_BY_MODEL = f"""
    SELECT model, {_SUMS} FROM ({_ENDED}) AS ended GROUP BY model ORDER BY model
"""  # noqa: S608
USAGE_SUMS = """
    SELECT day, model, {sums}
    FROM (SELECT {day} AS day, {model} AS model, calls, {amounts} FROM ({ended}) AS ended) AS calls
    WHERE (day, model) > (?, ?) GROUP BY day, model ORDER BY day, model LIMIT ?
"""
EACH_DAY, ALL_DAYS = "day", "CAST(0 AS BIGINT)"
EACH_MODEL, ALL_MODELS = "model", "CAST('' AS TEXT)"
TRANSFERS = """
    SELECT id, CASE WHEN credit = ? THEN amount ELSE -amount END, created_ms FROM transfers
    WHERE (created_ms, id) > (?, ?) AND (
        (debit = ? AND debit <> ':deposits') OR (credit = ? AND credit <> ':revenue'))
    ORDER BY created_ms, id LIMIT ?
"""


class ModelUsage(msgspec.Struct, frozen=True):
    """Usage of a model by an account."""

    model: str
    """Public name."""
    calls: int
    """Number of ended calls."""
    prompt_tokens: int
    """Prompt tokens, cached or not."""
    completion_tokens: int
    """Generated tokens, reasoning included."""
    thinking_tokens: int
    """Share of the generated tokens spent on reasoning."""
    cache_read_tokens: int
    """Share of the prompt tokens read from the provider's cache."""
    cache_write_tokens: int
    """Share of the prompt tokens written to the provider's cache."""
    charge: int
    """Sum of charges in nano-USD."""


class Grouping(Enum):
    """Grouping of a usage report."""

    DAY_AND_MODEL = auto()
    MODEL = auto()
    DAY = auto()


def _usage_sums(day: str, model: str) -> str:
    amounts = ", ".join(_AMOUNTS)
    return USAGE_SUMS.format(sums=_SUMS, day=day, model=model, amounts=amounts, ended=_ENDED)


SUMS_BY: Mapping[Grouping, str] = {
    Grouping.DAY_AND_MODEL: _usage_sums(EACH_DAY, EACH_MODEL),
    Grouping.MODEL: _usage_sums(ALL_DAYS, EACH_MODEL),
    Grouping.DAY: _usage_sums(EACH_DAY, ALL_MODELS),
}


class UsageSum(msgspec.Struct, frozen=True):
    """Usage of an account in one group."""

    day: int
    """Day on which the calls began, in days of UTC since 1970. 0 if days are not grouped."""
    usage: ModelUsage
    """Usage. Its model is empty if models are not grouped."""


class Transfer(msgspec.Struct, frozen=True):
    """Transfer to or from an account."""

    id: str
    """Unique."""
    amount: int
    """In nano-USD. Negative: from the account."""
    created_ms: int
    """Time of the transfer."""


def usage_by_model(account: str, start_ms: int, end_ms: int) -> Transaction[Sequence[ModelUsage]]:
    """Return the usage of an account in calls that began in [start, end), by model.

    Of calls whose holds are over their retention, those of the days that begin in this time.
    """
    rows = yield USAGE_BY_MODEL, _ended_values(account, (start_ms, end_ms))
    return [_usage(row) for row in rows]


def usage_sums(
    account: str,
    grouping: Grouping,
    time_range_ms: tuple[int, int],
    limit: int,
    after: tuple[int, str],
) -> Transaction[Sequence[UsageSum]]:
    """Return the usage of an account in calls that began in `time_range_ms`, [start, end).

    At most `limit` groups, by day and model, after the position (day, model). See
    `usage_by_model`.
    """
    values = _ended_values(account, time_range_ms)
    rows = yield SUMS_BY[grouping], (*values, *after, limit)
    return [UsageSum(msgspec.convert(day, int), _usage(usage)) for day, *usage in rows]


def list_transfers(
    account: str, limit: int, after: tuple[int, str]
) -> Transaction[Sequence[Transfer]]:
    """Return at most `limit` transfers, oldest first, after the position (time, ID)."""
    rows = yield TRANSFERS, (account, *after, account, account, limit)
    return [Transfer(*msgspec.convert(row, tuple[str, int, int])) for row in rows]


def _ended_values(account: str, time_range_ms: tuple[int, int]) -> Values:
    first_day, end_day = (-(-time_ms // DAY_MS) for time_ms in time_range_ms)
    return account, *time_range_ms, account, first_day, end_day


def _usage(row: Row) -> ModelUsage:
    model, calls = msgspec.convert(list(row[:2]), tuple[str, int])
    return ModelUsage(model, calls, *read_sums(row[2:]))
