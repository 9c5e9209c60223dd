"""Selections of calls, by the fields of requests and the scope of their caller."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from pomogator.calls.v1 import call_service_pb2 as pb

from services.accounts.proto_fields import in_range, stored_name, time_range_ms
from services.call_log.call_scope import CallScope
from services.errors import invalid
from services.storage.call_labels import END_USER, TAG, LabelFilter
from services.storage.call_rows import CallSelection

RowsRequest: TypeAlias = pb.ListCallsRequest | pb.ExportCallsRequest
SumsRequest: TypeAlias = pb.AggregateCallsRequest | pb.ExportCallSumsRequest
FilterRequest: TypeAlias = RowsRequest | SumsRequest


def selection_of_rows(request: RowsRequest, scope: CallScope) -> CallSelection:
    """Return the rows that a request selects. Raise Failure INVALID_FIELD."""
    return msgspec.structs.replace(
        _selection(request, scope),
        session=stored_name("session_id", request.session_id),
        end_user=stored_name("end_user", request.end_user),
        request_id=stored_name("request_id", request.request_id),
        min_charge=in_range("min_charge_nano_usd", request.min_charge_nano_usd, 0),
    )


def selection_of_sums(request: SumsRequest, scope: CallScope, span_ms: int) -> CallSelection:
    """Return the calls of whole intervals. Raise Failure INVALID_FIELD."""
    selection = _selection(request, scope)
    start_ms = selection.start_ms - selection.start_ms % span_ms
    return msgspec.structs.replace(selection, start_ms=start_ms)


def labels_of_sums(request: SumsRequest) -> LabelFilter | None:
    """Return the end users or tags to sum up; None: sums by other names are asked for.

    Raise Failure INVALID_FIELD for both at a time, or together with other names.
    """
    grouped = set(request.group_by)
    by_user = bool(request.end_user) or pb.CALL_DIMENSION_END_USER in grouped
    by_tag = bool(request.tag_name) or pb.CALL_DIMENSION_TAG in grouped
    if request.tag_value and not request.tag_name:
        raise invalid("tag_name", "tag_value needs a tag_name")
    if not (by_user or by_tag):
        return None
    others = [name for name in ("key_id", "model", "channel", "end") if getattr(request, name)]
    if others or grouped - _BESIDE_LABELS or (by_user and by_tag):
        param = "end_user" if by_user else "tag_name"
        message = "sums by end users or by tags go with accounts and intervals alone"
        raise invalid(others[0] if others else param, message)
    if by_user:
        return LabelFilter(kind=END_USER, value=stored_name("end_user", request.end_user))
    return LabelFilter(
        kind=TAG,
        name=stored_name("tag_name", request.tag_name),
        value=stored_name("tag_value", request.tag_value),
    )


_BESIDE_LABELS = {
    pb.CALL_DIMENSION_ACCOUNT, pb.CALL_DIMENSION_END_USER, pb.CALL_DIMENSION_TAG,
}  # fmt: skip


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
