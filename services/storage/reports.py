"""What was used and what was paid, as operators and callers read it.

Every report is of one account, and says so in its WHERE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

import msgspec

from services.storage.base import Transaction

USAGE_BY_MODEL = """
    SELECT model, count(*), CAST(sum(prompt_tokens) AS BIGINT),
        CAST(sum(completion_tokens) AS BIGINT), CAST(sum(thinking_tokens) AS BIGINT),
        CAST(sum(cache_read_tokens) AS BIGINT), CAST(sum(cache_write_tokens) AS BIGINT),
        CAST(sum(charge) AS BIGINT)
    FROM holds WHERE account = ? AND created_ms >= ? AND created_ms < ? AND state <> 'held'
    GROUP BY model ORDER BY model
"""
USAGE_SUMS = """
    SELECT day, model, count(*), CAST(sum(prompt_tokens) AS BIGINT),
        CAST(sum(completion_tokens) AS BIGINT), CAST(sum(thinking_tokens) AS BIGINT),
        CAST(sum(cache_read_tokens) AS BIGINT), CAST(sum(cache_write_tokens) AS BIGINT),
        CAST(sum(charge) AS BIGINT)
    FROM (
        SELECT {day} AS day, {model} AS model, prompt_tokens, completion_tokens,
            thinking_tokens, cache_read_tokens, cache_write_tokens, charge
        FROM holds WHERE account = ? AND created_ms >= ? AND created_ms < ? AND state <> 'held'
    ) AS calls
    WHERE (day, model) > (?, ?) GROUP BY day, model ORDER BY day, model LIMIT ?
"""
EACH_DAY, ALL_DAYS = "created_ms / 86400000", "CAST(0 AS BIGINT)"
EACH_MODEL, ALL_MODELS = "model", "CAST('' AS TEXT)"
TRANSFERS = """
    SELECT id, CASE WHEN credit = ? THEN amount ELSE -amount END, created_ms FROM transfers
    WHERE (created_ms, id) > (?, ?) AND (
        (debit = ? AND debit <> ':deposits') OR (credit = ? AND credit <> ':revenue'))
    ORDER BY created_ms, id LIMIT ?
"""


class ModelUsage(msgspec.Struct, frozen=True):
    """What an account has used of a model."""

    model: str
    """The public name."""
    calls: int
    """How many have ended."""
    prompt_tokens: int
    """Read, cached or not."""
    completion_tokens: int
    """Generated, reasoning included."""
    thinking_tokens: int
    """Of those generated, the ones spent on reasoning."""
    cache_read_tokens: int
    """Of those read, the ones from the provider's cache."""
    cache_write_tokens: int
    """Of those read, the ones written to it."""
    charge: int
    """In nano-USD."""


class Grouping(Enum):
    """What is summed up together."""

    DAY_AND_MODEL = auto()
    MODEL = auto()
    DAY = auto()


SUMS_BY: Mapping[Grouping, str] = {
    Grouping.DAY_AND_MODEL: USAGE_SUMS.format(day=EACH_DAY, model=EACH_MODEL),
    Grouping.MODEL: USAGE_SUMS.format(day=ALL_DAYS, model=EACH_MODEL),
    Grouping.DAY: USAGE_SUMS.format(day=EACH_DAY, model=ALL_MODELS),
}


class UsageSum(msgspec.Struct, frozen=True):
    """What an account has used, of a day or a model or both."""

    day: int
    """When the calls began, in days of UTC since 1970. 0 where all days are summed up."""
    usage: ModelUsage
    """How much. Its model is empty where all of them are summed up."""


class Transfer(msgspec.Struct, frozen=True):
    """Money that came in, or went out."""

    id: str
    """Unique for ever."""
    amount: int
    """In nano-USD. Negative went out."""
    created_ms: int
    """When."""


def usage_by_model(account: str, start_ms: int, end_ms: int) -> Transaction[Sequence[ModelUsage]]:
    """What the calls of an account that began in [start, end) took, by model."""
    rows = yield USAGE_BY_MODEL, (account, start_ms, end_ms)
    return [ModelUsage(*msgspec.convert(row, _USAGE)) for row in rows]


def usage_sums(
    account: str,
    grouping: Grouping,
    time_range_ms: tuple[int, int],
    limit: int,
    after: tuple[int, str],
) -> Transaction[Sequence[UsageSum]]:
    """What the calls of an account that began in `time_range_ms`, [start, end), took together.

    At most `limit` sums, by day and model, from behind `after`: a day and a model.
    """
    rows = yield SUMS_BY[grouping], (account, *time_range_ms, *after, limit)
    return [
        UsageSum(msgspec.convert(day, int), ModelUsage(*msgspec.convert(usage, _USAGE)))
        for day, *usage in rows
    ]


def list_transfers(
    account: str, limit: int, after: tuple[int, str]
) -> Transaction[Sequence[Transfer]]:
    """At most `limit` transfers, oldest first, from behind `after`: a time and an ID."""
    rows = yield TRANSFERS, (account, *after, account, account, limit)
    return [Transfer(*msgspec.convert(row, tuple[str, int, int])) for row in rows]


_USAGE = tuple[str, int, int, int, int, int, int, int]
