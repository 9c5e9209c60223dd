"""Call log calls: what the console asks the service about the calls of an account, or of all."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import grpc
from pomogator.calls.v1 import call_service_pb2 as pb
from pomogator.calls.v1.call_service_pb2_grpc import CallServiceStub

from gateway.console.account_calls import TIMEOUT_S, answered
from gateway.rpc.status_mapping import to_api_error

PAGE_SIZE = 50
EXPORT_TIMEOUT_S = 600.0


class Asker(Protocol):
    """A tenant with a key, or an operator."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of calls, with the credential where the channel needs one."""

    @property
    def request_id(self) -> str:
        """ID of the browser's request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFilter:
    """The calls to look at: those that all given fields select."""

    start: datetime | None = None
    end: datetime | None = None
    """The exclusive end of the time range."""
    account: str = ""
    key_id: str = ""
    model: str = ""
    channel: str = ""
    outcome: str = ""
    """How the calls ended."""
    session_id: str = ""
    end_user: str = ""
    request_id: str = ""
    min_charge_nano_usd: int = 0


class CallLogCalls:
    """Calls over a channel to the public or the operators' services. All raise ApiError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._calls = CallServiceStub(channel)

    async def calls(
        self, asker: Asker, selected: CallFilter, token: str = ""
    ) -> pb.ListCallsResponse:
        """Return a page of calls, newest first."""
        request = pb.ListCallsRequest(page_size=PAGE_SIZE, page_token=token)
        _select(request, selected)
        call = self._calls.ListCalls(request, metadata=asker.metadata, timeout=TIMEOUT_S)
        return await answered(call, asker.request_id)

    async def call(self, asker: Asker, call_id: str) -> pb.Call:
        """Return a call with its attempts and notes."""
        request = pb.GetCallRequest(call_id=call_id)
        call = self._calls.GetCall(request, metadata=asker.metadata, timeout=TIMEOUT_S)
        return (await answered(call, asker.request_id)).call

    async def sums_by_key(self, asker: Asker, since: datetime) -> Sequence[pb.CallGroup]:
        """Return the sums of the calls of each key since then."""
        request = pb.AggregateCallsRequest(
            group_by=[pb.CALL_DIMENSION_KEY],
            metrics=[pb.CALL_METRIC_COUNTS, pb.CALL_METRIC_TOKENS, pb.CALL_METRIC_MONEY],
        )
        request.start_time.FromDatetime(since)
        call = self._calls.AggregateCalls(request, metadata=asker.metadata, timeout=TIMEOUT_S)
        return (await answered(call, asker.request_id)).groups

    async def export(
        self, asker: Asker, selected: CallFilter, *, as_lines: bool
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


def _select(request: pb.ListCallsRequest | pb.ExportCallsRequest, selected: CallFilter) -> None:
    if selected.start is not None:
        request.start_time.FromDatetime(selected.start)
    if selected.end is not None:
        request.end_time.FromDatetime(selected.end)
    request.account = selected.account
    request.key_id = selected.key_id
    request.model = selected.model
    request.channel = selected.channel
    request.end = selected.outcome
    request.session_id = selected.session_id
    request.end_user = selected.end_user
    request.request_id = selected.request_id
    request.min_charge_nano_usd = selected.min_charge_nano_usd
