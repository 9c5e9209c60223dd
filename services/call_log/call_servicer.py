"""CallService, for callers and operators: lists, sums and exports of the call log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from pomogator.calls.v1 import call_service_pb2 as pb
from pomogator.calls.v1 import call_service_pb2_grpc as pb_grpc

from services.accounts.proto_fields import not_found
from services.call_log.call_filters import SumsRequest, labels_of_sums, selection_of_rows
from services.call_log.call_messages import call_message, group_message
from services.call_log.call_reader import CallLogReader
from services.call_log.call_scope import CallScope, ScopeOf
from services.call_log.export_text import FORMATS, ExportText, columns_of, sums_columns_of
from services.call_log.sums_request import METRICS, sums_query, wanted
from services.domain.error_reason import ErrorReason
from services.errors import Failure, invalid
from services.rpc.call_context import Context
from services.rpc.paging import START, Page
from services.storage.call_rows import CallRow

GROUPS_MAX = 5000
"""Most groups of one answer."""

READS_MAX = 4
"""Reads of the log at a time, for one kind of caller. Further ones wait."""


class CallServicer(pb_grpc.CallServiceServicer):
    """Reads the call log for one kind of caller."""

    def __init__(self, reader: CallLogReader | None, scope_of: ScopeOf) -> None:
        """`reader` is None where the log is off."""
        self._log = reader
        self._scope_of = scope_of
        self._reads = asyncio.Semaphore(READS_MAX)

    async def ListCalls(
        self, request: pb.ListCallsRequest, context: Context
    ) -> pb.ListCallsResponse:
        """List calls, newest first."""
        scope, reader = await self._opened(context)
        selection = selection_of_rows(request, scope)
        name = ("ListCalls", scope.account, selection)
        page = Page.of(request.page_size, request.page_token, *name)
        before = None if page.after == START else page.after
        async with self._reads:
            found = await reader.page(selection, page.limit, before)
        shown, token = page.cut(
            found, (call_message(row, scope) for row in found), lambda row: (row.at_ms, row.id)
        )
        return pb.ListCallsResponse(calls=shown, next_page_token=token)

    async def GetCall(self, request: pb.GetCallRequest, context: Context) -> pb.GetCallResponse:
        """Get a call, with its attempts and notes."""
        scope, reader = await self._opened(context)
        async with self._reads:
            row = await reader.call(request.call_id, scope.account)
        if row is None:
            raise not_found("call_id", "There is no call with this ID.")
        return pb.GetCallResponse(call=call_message(row, scope, whole=True))

    async def AggregateCalls(
        self, request: pb.AggregateCallsRequest, context: Context
    ) -> pb.AggregateCallsResponse:
        """Sum up calls by interval and by names."""
        scope, reader = await self._opened(context)
        return pb.AggregateCallsResponse(groups=await self._groups(request, scope, reader))

    async def ExportCallSums(
        self, request: pb.ExportCallSumsRequest, context: Context
    ) -> AsyncIterator[pb.ExportCallSumsResponse]:
        """Export the groups of `AggregateCalls` as text."""
        scope, reader = await self._opened(context)
        text = _text_form(request.format)
        groups = await self._groups(request, scope, reader)
        columns = sums_columns_of(scope)
        names, reads = list(columns), list(columns.values())
        data = text.head(names)
        data += text.lines(names, [[read(group) for read in reads] for group in groups])
        yield pb.ExportCallSumsResponse(mime_type=text.mime_type, data=data)

    async def ExportCalls(
        self, request: pb.ExportCallsRequest, context: Context
    ) -> AsyncIterator[pb.ExportCallsResponse]:
        """Export calls as text, oldest first."""
        scope, reader = await self._opened(context)
        text = _text_form(request.format)
        columns = columns_of(scope)
        names, reads = list(columns), list(columns.values())
        selection = selection_of_rows(request, scope)
        yield pb.ExportCallsResponse(mime_type=text.mime_type, data=text.head(names))
        async with aclosing(reader.export(selection)) as parts:
            while rows := await self._next_part(parts):
                data = text.lines(names, [[read(row) for read in reads] for row in rows])
                yield pb.ExportCallsResponse(mime_type=text.mime_type, data=data)

    async def GetGeneration(
        self, request: pb.GetGenerationRequest, context: Context
    ) -> pb.GetGenerationResponse:
        """Get the call of an answer, by the ID of the answer or of the request."""
        scope, reader = await self._opened(context)
        if not 0 < len(request.id) <= 128 or "\x00" in request.id:
            raise invalid("id", "id must be the ID of an answer")
        async with self._reads:
            row = await reader.call_of_answer(request.id, scope.account)
        if row is None:
            raise not_found("id", "There is no call with this ID.")
        return pb.GetGenerationResponse(call=call_message(row, scope, whole=True))

    async def _next_part(
        self, parts: AsyncGenerator[Sequence[CallRow], None]
    ) -> Sequence[CallRow] | None:
        """Return the next rows of an export, which waits among other reads. None: it is over."""
        async with self._reads:
            return await anext(parts, None)

    async def _groups(
        self, request: SumsRequest, scope: CallScope, reader: CallLogReader
    ) -> Sequence[pb.CallGroup]:
        query, labels = sums_query(request, scope, GROUPS_MAX + 1), labels_of_sums(request)
        async with self._reads:
            if labels is None:
                found = await reader.sums(query)
            else:
                found = await reader.sums_of_labels(query, labels)
        if len(found) > GROUPS_MAX:
            message = f"there are more than {GROUPS_MAX} groups; select fewer calls"
            raise invalid("group_by", message)
        metrics = set(request.metrics) or METRICS
        return [
            group_message(group, wanted(sums, metrics), query.dimensions, scope)
            for group, sums in found.items()
        ]

    async def _opened(self, context: Context) -> tuple[CallScope, CallLogReader]:
        """Return the scope of the caller, and the log. Raise Failure if the log is off."""
        scope = await self._scope_of(context)
        if self._log is None:
            raise Failure(ErrorReason.NOT_IMPLEMENTED, "The call log is off.")
        return scope, self._log


def _text_form(form: pb.ExportFormat.ValueType) -> ExportText:
    text = FORMATS.get(form)
    if text is None:
        raise invalid("format", "format must be EXPORT_FORMAT_CSV or EXPORT_FORMAT_NDJSON")
    return text
