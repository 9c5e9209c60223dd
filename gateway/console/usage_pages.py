"""Usage page: what an account was charged, by day, by model and by key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol

from aiohttp import web

from gateway.console.account_calls import AccountCalls, Caller
from gateway.console.call_log_calls import CallLogCalls
from gateway.console.charts import bar_chart
from gateway.console.pages import Pages
from gateway.console.visit import Visit
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

RANGES: Sequence[int] = (7, 30, 90)
"""Days that the page can show."""
DEFAULT_DAYS = 30


class UsageRow(Protocol):
    """The sums of the calls of a day and model, as the service has them."""

    day: str
    model: str
    request_count: int
    prompt_token_count: int
    completion_token_count: int
    cost_nano_usd: int


class KeySums(Protocol):
    """The sums of the calls of a key, as the call log has them."""

    key_id: str
    call_count: int
    failure_count: int
    prompt_token_count: int
    completion_token_count: int
    charge_nano_usd: int


@dataclass(slots=True)
class Sums:
    """Sums of some calls."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nano_usd: int = 0

    def add(self, row: UsageRow) -> None:
        """Add the sums of more calls."""
        self.calls += row.request_count
        self.prompt_tokens += row.prompt_token_count
        self.completion_tokens += row.completion_token_count
        self.nano_usd += row.cost_nano_usd

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.completion_tokens


class UsagePages:
    """Pages about the usage of the account of a key."""

    def __init__(self, pages: Pages, calls: AccountCalls, log: CallLogCalls) -> None:
        self._pages = pages
        self._calls = calls
        self._log = log

    async def usage(self, visit: Visit) -> web.Response:
        """Charges, calls and tokens by day, and the sums of each model."""
        days = last_days(_asked_days(visit.request.query.get("days", "")))
        caller = Caller(visit.session.key, visit.request_id)
        rows = await self._calls.daily_usage(caller, beginning(days[0]), by_model=True)
        by_day = _summed((row.day, row) for row in rows)
        by_model = _summed((row.model, row) for row in rows)
        of_days = [(str(day), by_day.get(str(day), Sums())) for day in days]
        total = _summed(("", row) for row in rows).get("", Sums())
        return self._pages.render(
            visit,
            "usage",
            ranges=RANGES,
            days=len(days),
            costs=bar_chart([(day, sums.nano_usd) for day, sums in of_days]),
            counts=bar_chart([(day, sums.calls) for day, sums in of_days]),
            tokens=bar_chart([(day, sums.tokens) for day, sums in of_days]),
            by_model=sorted(by_model.items(), key=lambda item: (-item[1].nano_usd, item[0])),
            total=total,
            by_key=await self._by_key(caller, days[0]),
        )

    async def _by_key(self, caller: Caller, first: date) -> Sequence[KeySums] | None:
        """Return the sums of each key, the dearest first. None: the call log is off."""
        try:
            found = await self._log.sums_by_key(caller, beginning(first))
        except ApiError as error:
            if error.reason != ErrorReason.NOT_IMPLEMENTED:
                raise
            return None
        return sorted(found, key=lambda group: (-group.charge_nano_usd, group.key_id))


def last_days(count: int) -> Sequence[date]:
    """Return the last days in UTC, today included, oldest first."""
    today = datetime.now(UTC).date()
    return [today - timedelta(days=count - 1 - number) for number in range(count)]


def beginning(day: date) -> datetime:
    """Return the time at which a day begins in UTC."""
    return datetime.combine(day, time(), UTC)


def _asked_days(text: str) -> int:
    return int(text) if text in map(str, RANGES) else DEFAULT_DAYS


def _summed(rows: Iterable[tuple[str, UsageRow]]) -> dict[str, Sums]:
    found: dict[str, Sums] = defaultdict(Sums)
    for name, row in rows:
        found[name].add(row)
    return found
