"""What was used and what was paid, as operators read it."""

from __future__ import annotations

from collections.abc import Sequence

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


def list_transfers(
    account: str, limit: int, after: tuple[int, str]
) -> Transaction[Sequence[Transfer]]:
    """At most `limit` transfers, oldest first, from behind `after`: a time and an ID."""
    rows = yield TRANSFERS, (account, *after, account, account, limit)
    return [Transfer(*msgspec.convert(row, tuple[str, int, int])) for row in rows]


_USAGE = tuple[str, int, int, int, int, int, int, int]
