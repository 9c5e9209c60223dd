"""Selections of calls, by the fields of requests and the scope of their caller."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from pomogator.calls.v1 import call_service_pb2 as pb

from services.accounts.proto_fields import in_range, invalid, stored_name, time_range_ms
from services.call_log.call_scope import CallScope
from services.storage.call_rows import CallSelection

RowsRequest: TypeAlias = pb.ListCallsRequest | pb.ExportCallsRequest
FilterRequest: TypeAlias = RowsRequest | pb.AggregateCallsRequest


def selection_of_rows(request: RowsRequest, scope: CallScope) -> CallSelection:
    """Return the rows that a request selects. Raise Failure INVALID_FIELD."""
    return msgspec.structs.replace(
        _selection(request, scope),
        session=stored_name("session_id", request.session_id),
        end_user=stored_name("end_user", request.end_user),
        request_id=stored_name("request_id", request.request_id),
        min_charge=in_range("min_charge_nano_usd", request.min_charge_nano_usd, 0),
    )


def selection_of_sums(
    request: pb.AggregateCallsRequest, scope: CallScope, span_ms: int
) -> CallSelection:
    """Return the calls of whole intervals. Raise Failure INVALID_FIELD."""
    selection = _selection(request, scope)
    start_ms = selection.start_ms - selection.start_ms % span_ms
    return msgspec.structs.replace(selection, start_ms=start_ms)


def _selection(request: FilterRequest, scope: CallScope) -> CallSelection:
    account = stored_name("account", request.account)
    if not scope.is_operator:
        if account not in {"", scope.account}:
            raise invalid("account", "account must be the account of the key, or empty")
        if request.channel:
            raise invalid("channel", "channel is for operators")
        account = scope.account
    start_ms, end_ms = time_range_ms(request)
    return CallSelection(
        start_ms=start_ms,
        end_ms=end_ms,
        account=account,
        key_id=stored_name("key_id", request.key_id),
        model=stored_name("model", request.model),
        channel=stored_name("channel", request.channel),
        call_end=stored_name("end", request.end),
    )
