"""Tenant pages: the account of a key, its models, a playground and quick starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import grpc
from aiohttp import web
from multidict import CIMultiDict
from pomogator.usage.v1 import usage_service_pb2 as pb
from pomogator.usage.v1.usage_service_pb2_grpc import UsageServiceStub

from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.console.account_calls import daily_usage
from gateway.console.askers import TIMEOUT_S, ask, tenant_of
from gateway.console.call_log_pages import CALLS
from gateway.console.charts import bar_chart
from gateway.console.key_pages import KEYS
from gateway.console.pages import AUDIT, Entry, Pages
from gateway.console.quick_starts import quick_starts
from gateway.console.usage_pages import USAGE, beginning, last_days
from gateway.console.visit import CSRF_HEADER, Visit, require_same_site
from gateway.errors import ApiError
from gateway.http.credentials import AUTHORIZATION
from gateway.http.middleware import BEGUN, Handler
from services.domain.call_options import CallOptions
from services.domain.error_reason import ErrorReason
from services.domain.model import Model

HOME = "/console"
CHAT_PATH = "/console/v1/chat/completions"

ENTRIES: Sequence[Entry] = (
    Entry(HOME, "nav.overview", "o"),
    Entry(KEYS, "nav.keys", "k"),
    Entry(USAGE, "nav.usage", "u"),
    Entry(CALLS, "nav.calls", "c"),
    Entry(AUDIT, "nav.audit", "a"),
    Entry("/console/playground", "nav.playground", "p"),
    Entry("/console/models", "nav.models", "m"),
    Entry("/console/quick-starts", "nav.quick_starts", "s"),
)

_EMBEDDINGS = "embeddings"

CHART_DAYS = 30
BURN_DAYS = 7
"""Days over whose charges the burn rate is averaged."""


class TenantPages:
    """Pages for a session with a key."""

    def __init__(
        self,
        pages: Pages,
        channel: grpc.aio.Channel,
        backend: Backend,
        complete: Handler,
        config: EdgeConfig,
    ) -> None:
        """`complete` answers chat completions with a key."""
        self._pages = pages
        self._usage = UsageServiceStub(channel)
        self._backend = backend
        self._complete = complete
        self._config = config

    async def overview(self, visit: Visit) -> web.Response:
        """Balance, burn rate and key."""
        asker, days = tenant_of(visit), last_days(CHART_DAYS)
        paid, own, usage = await asyncio.gather(
            ask(self._usage.GetBalance, pb.GetBalanceRequest(), asker),
            ask(self._usage.GetKeyUsage, pb.GetKeyUsageRequest(), asker),
            daily_usage(self._usage, asker, beginning(days[0])),
        )
        balance = paid.balance
        costs = {row.day: row.cost_nano_usd for row in usage}
        values = [(str(day), costs.get(str(day), 0)) for day in days]
        burn_nano_usd = sum(cost for _, cost in values[-BURN_DAYS:]) // BURN_DAYS
        return self._pages.render(
            visit,
            "overview",
            balance=balance,
            key=own.key_usage,
            chart=bar_chart(values),
            request_count=sum(row.request_count for row in usage),
            chart_days=CHART_DAYS,
            burn_nano_usd=burn_nano_usd,
            days_left=_days_left(balance.available_nano_usd, burn_nano_usd),
        )

    async def models(self, visit: Visit) -> web.Response:
        """All models that the key may use, with what they can and cost."""
        models = await self._models(visit)
        return self._pages.render(visit, "models", models=models, chat_models=_chat_models(models))

    async def playground(self, visit: Visit) -> web.Response:
        """A form for one conversation, which stays in the browser."""
        models = await self._models(visit)
        return self._pages.render(
            visit,
            "playground",
            models=_chat_models(models),
            chosen=visit.request.query.get("model", ""),
            chat_path=CHAT_PATH,
        )

    async def quick_starts(self, visit: Visit) -> web.Response:
        """Commands and programs with this gateway's base URL."""
        models = await self._models(visit)
        url = self._config.public_url or visit.origin
        starts = quick_starts(url, _example(models), self._config.public_grpc)
        return self._pages.render(visit, "quick_starts", url=url, starts=starts)

    async def chat(self, visit: Visit) -> web.StreamResponse:
        """Answer a chat completion of the playground, as that of any client with the key."""
        request = visit.request
        require_same_site(visit, request.headers.get(CSRF_HEADER, ""))
        if visit.session.role != "tenant":
            raise ApiError(ErrorReason.INVALID_API_KEY, "The session is over. Sign in again.")
        headers: CIMultiDict[str] = CIMultiDict(request.headers)
        headers.popall("Cookie", None)
        headers[AUTHORIZATION] = f"Bearer {visit.session.key}"
        asked = request.clone(headers=headers)
        try:
            return await self._complete(asked)
        finally:
            request[BEGUN] = asked.get(BEGUN, 0.0)

    async def _models(self, visit: Visit) -> Sequence[Model]:
        asker = tenant_of(visit)
        options = CallOptions(key=asker.key, request_id=asker.request_id, deadline_s=TIMEOUT_S)
        return await self._backend.models(options)


def _days_left(available_nano_usd: int, burn_nano_usd: int) -> int | None:
    """Return for how many days the money lasts at this rate. None: it is not spent."""
    return max(0, available_nano_usd) // burn_nano_usd if burn_nano_usd > 0 else None


def _chat_models(models: Iterable[Model]) -> Sequence[Model]:
    """Return those that answer in words: others compute embeddings."""
    return [model for model in models if _EMBEDDINGS not in model.output_modalities]


def _example(models: Iterable[Model]) -> str:
    return next((model.name for model in _chat_models(models)), "MODEL")
