"""Live call pages: the calls in flight, and their abort."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlencode

from aiohttp import web

from gateway.console.askers import operator_of
from gateway.console.form_fields import Fields
from gateway.console.operation_calls import LiveCallFilter, OperationCalls
from gateway.console.operator_pages import LIVE_CALLS
from gateway.console.pages import Pages, redirect
from gateway.console.visit import Visit

STATES: Mapping[int, str] = {
    1: "live.starting",
    2: "live.waiting",
    3: "live.answering",
    4: "live.aborting",
}
"""Names of texts, by the state's number in the contract."""


class LiveCallPages:
    """Pages about the calls in flight, for operators."""

    def __init__(self, pages: Pages, calls: OperationCalls) -> None:
        self._pages = pages
        self._calls = calls

    async def live_calls(self, visit: Visit) -> web.Response:
        """A page of the calls in flight, and the filter that selects them."""
        query = visit.request.query
        selected = LiveCallFilter(*(query.get(name, "").strip() for name in LiveCallFilter._fields))
        listed = await self._calls.live_calls(operator_of(visit), selected, query.get("after", ""))
        given = {name: value for name, value in selected._asdict().items() if value}
        return self._pages.render(
            visit,
            "live_calls",
            listed=listed,
            fields=selected._asdict(),
            states=STATES,
            now_s=time.time(),
            aborted="aborted" in query,
            next_url=f"{LIVE_CALLS}?{urlencode({**given, 'after': listed.next_page_token})}",
        )

    async def abort(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Abort a call."""
        fields = Fields(form)
        await self._calls.abort_call(
            operator_of(visit), fields.text("call_id"), fields.text("reason")
        )
        return redirect(f"{LIVE_CALLS}?aborted")
