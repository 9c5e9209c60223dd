"""Call log pages: calls to look through, one call, and exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from urllib.parse import urlencode

from aiohttp import web

from gateway.console.askers import Asker
from gateway.console.call_log_calls import CallLogCalls
from gateway.console.form_fields import Fields
from gateway.console.pages import SECURITY_HEADERS, Pages
from gateway.console.visit import Visit
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

CALLS = "/console/calls"

FIELDS = ("since", "until", "model", "outcome", "key_id", "request_id", "session_id", "end_user",
          "min_charge_usd")  # fmt: skip
"""Fields of the filter, for both roles."""
OPERATOR_FIELDS = ("account", "channel")


class CallLogPages:
    """Pages about the call log, for tenants or for operators."""

    def __init__(
        self,
        pages: Pages,
        calls: CallLogCalls,
        asker_of: Callable[[Visit], Asker],
        *,
        sees_all: bool,
    ) -> None:
        """`asker_of` returns the asker of a visit; `sees_all`: operators, who see all accounts."""
        self._pages = pages
        self._calls = calls
        self._asker_of = asker_of
        self._sees_all = sees_all

    async def calls(self, visit: Visit) -> web.Response:
        """A page of calls, and the filter that selects them."""
        fields = self._fields(visit)
        query = {name: value for name, value in fields.items() if value}
        try:
            listed = await self._calls.calls(
                self._asker_of(visit), Fields(fields), visit.request.query.get("after", "")
            )
        except ApiError as error:
            if error.reason != ErrorReason.NOT_IMPLEMENTED:
                raise
            return self._pages.render(visit, "calls_off", status=error.status)
        return self._pages.render(
            visit,
            "calls",
            listed=listed,
            fields=fields,
            sees_all=self._sees_all,
            next_url=_url(CALLS, {**query, "after": listed.next_page_token}),
            csv_url=_url(f"{CALLS}/export", {**query, "format": "csv"}),
            ndjson_url=_url(f"{CALLS}/export", {**query, "format": "ndjson"}),
        )

    async def call(self, visit: Visit) -> web.Response:
        """A call, with its attempts and notes."""
        call_id = visit.request.match_info["call_id"]
        call = await self._calls.call(self._asker_of(visit), call_id)
        return self._pages.render(visit, "call", call=call, sees_all=self._sees_all)

    async def export(self, visit: Visit) -> web.StreamResponse:
        """The selected calls as a file."""
        as_lines = visit.request.query.get("format") == "ndjson"
        name = f"calls.{'ndjson' if as_lines else 'csv'}"
        selected = Fields(self._fields(visit))
        parts = self._calls.export(self._asker_of(visit), selected, as_lines=as_lines)
        async with aclosing(parts):
            first = await anext(parts)
            response = web.StreamResponse(
                headers={
                    **SECURITY_HEADERS,
                    "Content-Type": f"{first.mime_type}; charset=utf-8",
                    "Content-Disposition": f'attachment; filename="{name}"',
                }
            )
            await response.prepare(visit.request)
            await response.write(first.data)
            try:
                async for part in parts:
                    await response.write(part.data)
            except ApiError:
                # The status has been sent: only a broken connection shows that the file is not
                # whole.
                if visit.request.transport is not None:
                    visit.request.transport.abort()
                raise ConnectionAbortedError("the export has broken off") from None
            await response.write_eof()
        return response

    def _fields(self, visit: Visit) -> Mapping[str, str]:
        names = (*FIELDS, *OPERATOR_FIELDS) if self._sees_all else FIELDS
        query = visit.request.query
        return {name: query.get(name, "").strip() for name in names}


def _url(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}"
