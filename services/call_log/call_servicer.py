"""CallService, for callers and operators: lists, sums and exports of the call log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing

from pomogator.calls.v1 import call_service_pb2 as pb
from pomogator.calls.v1 import call_service_pb2_grpc as pb_grpc

from services.accounts.proto_fields import invalid, not_found, time_range_ms
from services.call_log.call_filters import selection_of_rows, selection_of_sums
from services.call_log.call_messages import call_message, group_message
from services.call_log.call_reader import CallLogReader
from services.call_log.call_scope import CallScope, ScopeOf
from services.call_log.export_text import FORMATS, columns_of
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.call_context import Context
from services.rpc.paging import START, Page
from services.storage.call_sums import DAY_MS, HOUR_MS, CallSums, SumsQuery

DIMENSIONS: Mapping[pb.CallDimension.ValueType, str] = {
    pb.CALL_DIMENSION_ACCOUNT: "account",
    pb.CALL_DIMENSION_KEY: "key_id",
    pb.CALL_DIMENSION_MODEL: "model",
    pb.CALL_DIMENSION_CHANNEL: "channel",
    pb.CALL_DIMENSION_END: "call_end",
}
SPANS_MS: Mapping[pb.CallInterval.ValueType, int] = {
    pb.CALL_INTERVAL_HOUR: HOUR_MS,
    pb.CALL_INTERVAL_DAY: DAY_MS,
}
METRICS = frozenset(pb.CallMetric.values()) - {pb.CALL_METRIC_UNSPECIFIED}

HOURLY_MS_MAX = 3 * DAY_MS
"""Longest time range without intervals that is summed up by hours."""

GROUPS_MAX = 5000
"""Most groups of one answer."""

READS_MAX = 4
"""Reads of the log at a time. Further ones wait."""


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
        shown = page.items(found)
        last = (shown[-1].at_ms, shown[-1].id) if shown else START
        return pb.ListCallsResponse(
            calls=[call_message(row, scope) for row in shown],
            next_page_token=page.next_token(found, last),
        )

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
        query = _query(request, scope)
        async with self._reads:
            found = await reader.sums(query)
        if len(found) > GROUPS_MAX:
            message = f"there are more than {GROUPS_MAX} groups; select fewer calls"
            raise invalid("group_by", message)
        metrics = set(request.metrics) or METRICS
        return pb.AggregateCallsResponse(
            groups=[
                group_message(group, _wanted(sums, metrics), query.dimensions, scope)
                for group, sums in found.items()
            ]
        )

    async def ExportCalls(
        self, request: pb.ExportCallsRequest, context: Context
    ) -> AsyncIterator[pb.ExportCallsResponse]:
        """Export calls as text, oldest first."""
        scope, reader = await self._opened(context)
        text = FORMATS.get(request.format)
        if text is None:
            raise invalid("format", "format must be EXPORT_FORMAT_CSV or EXPORT_FORMAT_NDJSON")
        columns = columns_of(scope)
        names, reads = list(columns), list(columns.values())
        selection = selection_of_rows(request, scope)
        yield pb.ExportCallsResponse(mime_type=text.mime_type, data=text.head(names))
        async with aclosing(reader.export(selection)) as parts:
            async for rows in parts:
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

    async def _opened(self, context: Context) -> tuple[CallScope, CallLogReader]:
        """Return the scope of the caller, and the log. Raise Failure if the log is off."""
        scope = await self._scope_of(context)
        if self._log is None:
            raise Failure(ErrorReason.NOT_IMPLEMENTED, "The call log is off.")
        return scope, self._log


def _query(request: pb.AggregateCallsRequest, scope: CallScope) -> SumsQuery:
    span_ms = _span_ms(request)
    dimensions = [DIMENSIONS.get(each, "") for each in request.group_by]
    if "" in dimensions or len(set(dimensions)) < len(dimensions):
        raise invalid("group_by", "group_by must be different values of CallDimension")
    if "channel" in dimensions and not scope.is_operator:
        raise invalid("group_by", "CALL_DIMENSION_CHANNEL is for operators")
    metrics = set(request.metrics)
    if not metrics <= METRICS:
        raise invalid("metrics", "metrics must be values of CallMetric")
    return SumsQuery(
        selection=selection_of_sums(request, scope, span_ms),
        span_ms=span_ms,
        by_interval=request.interval != pb.CALL_INTERVAL_UNSPECIFIED,
        dimensions=dimensions,
        durations=not metrics or pb.CALL_METRIC_DURATIONS in metrics,
        limit=GROUPS_MAX + 1,
    )


def _span_ms(request: pb.AggregateCallsRequest) -> int:
    """Return the length of the intervals whose sums are read."""
    if request.interval == pb.CALL_INTERVAL_UNSPECIFIED:
        start_ms, end_ms = time_range_ms(request)
        return HOUR_MS if end_ms - start_ms <= HOURLY_MS_MAX else DAY_MS
    span_ms = SPANS_MS.get(request.interval)
    if span_ms is None:
        raise invalid("interval", "interval must be CALL_INTERVAL_HOUR or CALL_INTERVAL_DAY")
    return span_ms


def _wanted(sums: CallSums, metrics: Collection[int]) -> CallSums:
    """Return the figures that a request asks for."""
    shown = CallSums()
    if pb.CALL_METRIC_COUNTS in metrics:
        shown.calls, shown.failures = sums.calls, sums.failures
    if pb.CALL_METRIC_TOKENS in metrics:
        shown.tokens = sums.tokens
    if pb.CALL_METRIC_MONEY in metrics:
        shown.money = sums.money
    if pb.CALL_METRIC_DURATIONS in metrics:
        shown.ttft, shown.total = sums.ttft, sums.total
    return shown
