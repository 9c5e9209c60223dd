"""Explain pages: how a call would be routed now."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from gateway.console.askers import operator_of
from gateway.console.channel_pages import BREAKERS
from gateway.console.form_fields import Fields
from gateway.console.operation_calls import ExplainedCall, Explanation, OperationCalls
from gateway.console.pages import Pages
from gateway.console.visit import Visit

EXAMPLE = ExplainedCall(model="", text="Hello!")


class ExplainPages:
    """Pages of dry runs, for operators."""

    def __init__(self, pages: Pages, calls: OperationCalls) -> None:
        self._pages = pages
        self._calls = calls

    async def form(self, visit: Visit) -> web.Response:
        """Ask for a call to be explained."""
        return await self._render(visit, EXAMPLE, None)

    async def explain(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Explain a call. Its text is on this page alone."""
        fields = Fields(form)
        call = ExplainedCall(
            model=fields.text("model"),
            text=form.get("text", ""),
            account=fields.text("account"),
            session_id=fields.text("session_id"),
        )
        return await self._render(visit, call, await self._calls.explain(operator_of(visit), call))

    async def _render(
        self, visit: Visit, call: ExplainedCall, explanation: Explanation | None
    ) -> web.Response:
        channels = await self._calls.channels(operator_of(visit))
        return self._pages.render(
            visit,
            "explain",
            models=sorted({channel.model for channel in channels}),
            call=call,
            explanation=explanation,
            breakers=BREAKERS,
        )
