"""Usage page: what an account was charged, by day, model, key, end user and tag."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

import grpc
from aiohttp import web
from pomogator.calls.v1.call_service_pb2 import CallGroup
from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1.usage_service_pb2_grpc import UsageServiceStub

from gateway.console.account_calls import daily_usage
from gateway.console.askers import TenantAsker, tenant_of
from gateway.console.call_log_calls import CallLogCalls, Dimension, SelectedGroup
from gateway.console.charts import bar_chart
from gateway.console.pages import Pages
from gateway.console.visit import Visit
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

RANGES: Sequence[int] = (7, 30, 90)
"""Days that the page can show."""
DEFAULT_DAYS = 30
GROUPS_MAX = 50
"""The most keys, end users or tags that the page shows."""
USAGE = "/console/usage"


@dataclass(slots=True)
class Sums:
    """Sums of some calls."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nano_usd: int = 0

    def add(self, row: pb.UsageSum) -> None:
        """Add the sums of more calls."""
        self.calls += row.request_count
        self.prompt_tokens += row.prompt_token_count
        self.completion_tokens += row.completion_token_count
        self.nano_usd += row.cost_nano_usd

    def add_group(self, group: CallGroup) -> None:
        """Add the sums of more calls, as the call log has them."""
        self.calls += group.call_count
        self.prompt_tokens += group.prompt_token_count
        self.completion_tokens += group.completion_token_count
        self.nano_usd += group.charge_nano_usd

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.completion_tokens


class Groups(NamedTuple):
    """Sums of groups of calls, by charge, highest first."""

    shown: Sequence[CallGroup]
    highest_nano_usd: int
    """Charge of the first group."""
    more_count: int
    """Number of groups that are not shown."""


class Breakdown(NamedTuple):
    """Sums of all calls by model, key, end user and tag. Without a call log: by model alone."""

    by_model: Sequence[tuple[str, Sums]]
    by_key: Groups | None
    by_end_user: Groups | None
    by_tag: Groups | None


class UsagePages:
    """Pages about the usage of the account of a key."""

    def __init__(self, pages: Pages, channel: grpc.aio.Channel) -> None:
        self._pages = pages
        self._usage = UsageServiceStub(channel)
        self._log = CallLogCalls(channel)

    async def usage(self, visit: Visit) -> web.Response:
        """Charges, calls and tokens by day, with the sums of each model, key, end user and tag.

        Where the query names a key, an end user or a tag: the days of its calls alone.
        """
        query = visit.request.query
        days = last_days(_asked_days(query.get("days", "")))
        asker = tenant_of(visit)
        group = SelectedGroup(*(query.get(name, "") for name in SelectedGroup._fields))
        if any(group):
            return await self._of_group(visit, asker, days, group)
        rows = await daily_usage(self._usage, asker, beginning(days[0]), by_model=True)
        by_model = _summed((row.model, row) for row in rows)
        by_key, by_end_user, by_tag = await asyncio.gather(
            *(self._groups(asker, days[0], each) for each in ("key", "end_user", "tag"))
        )
        breakdown = Breakdown(
            sorted(by_model.items(), key=lambda item: (-item[1].nano_usd, item[0])),
            by_key,
            by_end_user,
            by_tag,
        )
        by_day = _summed((row.day, row) for row in rows)
        return self._render(visit, days, by_day, breakdown, group)

    async def _of_group(
        self, visit: Visit, asker: TenantAsker, days: Sequence[date], group: SelectedGroup
    ) -> web.Response:
        by_day: dict[str, Sums] = defaultdict(Sums)
        for day, found in (await self._log.daily_sums(asker, beginning(days[0]), group)).items():
            by_day[day].add_group(found)
        return self._render(visit, days, by_day, None, group)

    def _render(
        self,
        visit: Visit,
        days: Sequence[date],
        by_day: Mapping[str, Sums],
        breakdown: Breakdown | None,
        group: SelectedGroup,
    ) -> web.Response:
        of_days = [(str(day), by_day.get(str(day), Sums())) for day in days]
        total = Sums(
            calls=sum(sums.calls for _, sums in of_days),
            prompt_tokens=sum(sums.prompt_tokens for _, sums in of_days),
            completion_tokens=sum(sums.completion_tokens for _, sums in of_days),
            nano_usd=sum(sums.nano_usd for _, sums in of_days),
        )
        return self._pages.render(
            visit,
            "usage",
            ranges=RANGES,
            days=len(days),
            costs=bar_chart([(day, sums.nano_usd) for day, sums in of_days]),
            counts=bar_chart([(day, sums.calls) for day, sums in of_days]),
            tokens=bar_chart([(day, sums.tokens) for day, sums in of_days]),
            total=total,
            url_of=usage_url,
            breakdown=breakdown,
            group=group,
        )

    async def _groups(self, asker: TenantAsker, first: date, dimension: Dimension) -> Groups | None:
        """Return the sums of each key, end user or tag, highest charge first. None: no call log."""
        try:
            found = await self._log.sums(asker, beginning(first), dimension)
        except ApiError as error:
            if error.reason != ErrorReason.NOT_IMPLEMENTED:
                raise
            return None
        ranked = sorted(found, key=_rank)
        shown = ranked[:GROUPS_MAX]
        highest = max((each.charge_nano_usd for each in shown), default=0)
        return Groups(shown, highest, len(ranked) - len(shown))


def usage_url(days: int, **group: str) -> str:
    """Return the URL of the page for so many days, for all calls or those of a group."""
    return f"{USAGE}?{urlencode({'days': days, **group})}"


def _rank(group: CallGroup) -> tuple[int, int, tuple[str, ...]]:
    name = group.key_id, group.end_user, group.tag_name, group.tag_value
    return -group.charge_nano_usd, -group.call_count, name


def last_days(count: int) -> Sequence[date]:
    """Return the last days in UTC, today included, oldest first."""
    today = datetime.now(UTC).date()
    return [today - timedelta(days=count - 1 - number) for number in range(count)]


def beginning(day: date) -> datetime:
    """Return the time at which a day begins in UTC."""
    return datetime.combine(day, time(), UTC)


def _asked_days(text: str) -> int:
    return int(text) if text in map(str, RANGES) else DEFAULT_DAYS


def _summed(rows: Iterable[tuple[str, pb.UsageSum]]) -> dict[str, Sums]:
    found: dict[str, Sums] = defaultdict(Sums)
    for name, row in rows:
        found[name].add(row)
    return found
