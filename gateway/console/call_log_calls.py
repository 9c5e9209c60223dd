"""Call log calls: requests of the console to CallService, for one account or for all."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import grpc
from pomogator.calls.v1 import call_service_pb2 as pb
from pomogator.calls.v1.call_service_pb2_grpc import CallServiceStub

from gateway.console.askers import Asker, ask
from gateway.console.form_fields import Fields
from gateway.rpc.status_mapping import to_api_error

PAGE_SIZE = 50
EXPORT_TIMEOUT_S = 600.0
NAMES = ("account", "key_id", "model", "channel", "session_id", "end_user", "request_id")
"""Fields that select the calls with a name, in a form and in requests."""


class SelectedGroup(NamedTuple):
    """The calls of a key, of an end user, or with a tag. Empty fields select nothing."""

    key_id: str = ""
    end_user: str = ""
    tag_name: str = ""
    tag_value: str = ""


Dimension = Literal["key", "end_user", "tag"]
_DIMENSIONS: Mapping[Dimension, pb.CallDimension.ValueType] = {
    "key": pb.CALL_DIMENSION_KEY,
    "end_user": pb.CALL_DIMENSION_END_USER,
    "tag": pb.CALL_DIMENSION_TAG,
}
_METRICS = (pb.CALL_METRIC_COUNTS, pb.CALL_METRIC_TOKENS, pb.CALL_METRIC_MONEY)


class CallLogCalls:
    """Calls over a channel to the public or the operators' services. All raise ApiError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._calls = CallServiceStub(channel)

    async def calls(self, asker: Asker, selected: Fields, token: str = "") -> pb.ListCallsResponse:
        """Return a page of calls, newest first."""
        request = pb.ListCallsRequest(page_size=PAGE_SIZE, page_token=token)
        _select(request, selected)
        return await ask(self._calls.ListCalls, request, asker)

    async def call(self, asker: Asker, call_id: str) -> pb.Call:
        """Return a call with its attempts and notes."""
        request = pb.GetCallRequest(call_id=call_id)
        return (await ask(self._calls.GetCall, request, asker)).call

    async def sums(
        self, asker: Asker, since: datetime, dimension: Dimension
    ) -> Sequence[pb.CallGroup]:
        """Return the sums of the calls since then, of each key, end user or tag."""
        request = pb.AggregateCallsRequest(group_by=[_DIMENSIONS[dimension]], metrics=_METRICS)
        request.start_time.FromDatetime(since)
        return await self._aggregate(asker, request)

    async def daily_sums(
        self, asker: Asker, since: datetime, group: SelectedGroup
    ) -> Mapping[str, pb.CallGroup]:
        """Return the sums of a group's calls of each day since then, by the day in UTC."""
        request = pb.AggregateCallsRequest(
            interval=pb.CALL_INTERVAL_DAY, metrics=_METRICS, **group._asdict()
        )
        request.start_time.FromDatetime(since)
        groups = await self._aggregate(asker, request)
        return {str(each.start_time.ToDatetime(UTC).date()): each for each in groups}

    async def _aggregate(
        self, asker: Asker, request: pb.AggregateCallsRequest
    ) -> Sequence[pb.CallGroup]:
        return (await ask(self._calls.AggregateCalls, request, asker)).groups

    async def export(
        self, asker: Asker, selected: Fields, *, as_lines: bool
    ) -> AsyncGenerator[pb.ExportCallsResponse, None]:
        """Yield the parts of an export: CSV, or a JSON object in each line."""
        form = pb.EXPORT_FORMAT_NDJSON if as_lines else pb.EXPORT_FORMAT_CSV
        request = pb.ExportCallsRequest(format=form)
        _select(request, selected)
        call = self._calls.ExportCalls(request, metadata=asker.metadata, timeout=EXPORT_TIMEOUT_S)
        try:
            async for part in call:
                yield part
        except grpc.aio.AioRpcError as error:
            raise to_api_error(error, asker.request_id) from None
        finally:
            call.cancel()


def _select(request: pb.ListCallsRequest | pb.ExportCallsRequest, fields: Fields) -> None:
    """Select the calls that all fields of a form select. Raise ApiError where one is wrong."""
    if (start := fields.day("since")) is not None:
        request.start_time.FromDatetime(start)
    if (end := fields.end_of_day("until")) is not None:
        request.end_time.FromDatetime(end)
    for name in NAMES:
        setattr(request, name, fields.text(name))
    request.end = fields.text("outcome")
    request.min_charge_nano_usd = fields.nano_usd("min_charge_usd") or 0
