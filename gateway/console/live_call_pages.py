"""Live call pages: the calls in flight, and their abort."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlencode

from aiohttp import web
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

from gateway.console.askers import ask, operator_of
from gateway.console.form_fields import Fields
from gateway.console.operator_pages import LIVE_CALLS
from gateway.console.pages import Pages, redirect
from gateway.console.visit import Visit

FIELDS = ("account", "key_id", "model", "channel")
"""Fields of the filter."""
STATES: Mapping[int, str] = {
    1: "live.starting",
    2: "live.waiting",
    3: "live.answering",
    4: "live.aborting",
}
"""Names of texts, by the state's number in the contract."""


class LiveCallPages:
    """Pages about the calls in flight, for operators."""

    def __init__(self, pages: Pages, operations: OperationsServiceStub) -> None:
        self._pages = pages
        self._operations = operations

    async def live_calls(self, visit: Visit) -> web.Response:
        """A page of the calls in flight, and the filter that selects them."""
        query = visit.request.query
        fields = {name: query.get(name, "").strip() for name in FIELDS}
        request = pb.ListLiveCallsRequest(page_token=query.get("after", ""))
        for name, value in fields.items():
            setattr(request, name, value)
        listed = await ask(self._operations.ListLiveCalls, request, operator_of(visit))
        given = {name: value for name, value in fields.items() if value}
        return self._pages.render(
            visit,
            "live_calls",
            listed=listed,
            fields=fields,
            states=STATES,
            now_s=time.time(),
            aborted="aborted" in query,
            next_url=f"{LIVE_CALLS}?{urlencode({**given, 'after': listed.next_page_token})}",
        )

    async def abort(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Abort a call."""
        fields = Fields(form)
        request = pb.AbortCallRequest(call_id=fields.text("call_id"), reason=fields.text("reason"))
        await ask(self._operations.AbortCall, request, operator_of(visit))
        return redirect(f"{LIVE_CALLS}?aborted")
