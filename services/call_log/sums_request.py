"""Query of the sums that a request asks for, and the figures that it wants of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pomogator.calls.v1 import call_service_pb2 as pb

from services.accounts.proto_fields import time_range_ms
from services.call_log.call_filters import SumsRequest, labels_of_sums, selection_of_sums
from services.call_log.call_scope import CallScope
from services.errors import invalid
from services.storage.call_sums import DAY_MS, HOUR_MS, CallSums, SumsQuery

DIMENSIONS: Mapping[pb.CallDimension.ValueType, Sequence[str]] = {
    pb.CALL_DIMENSION_ACCOUNT: ("account",),
    pb.CALL_DIMENSION_KEY: ("key_id",),
    pb.CALL_DIMENSION_MODEL: ("model",),
    pb.CALL_DIMENSION_CHANNEL: ("channel",),
    pb.CALL_DIMENSION_END: ("call_end",),
    pb.CALL_DIMENSION_END_USER: ("end_user",),
    pb.CALL_DIMENSION_TAG: ("tag_name", "tag_value"),
}
"""Names that sums are grouped by."""

SPANS_MS: Mapping[pb.CallInterval.ValueType, int] = {
    pb.CALL_INTERVAL_HOUR: HOUR_MS,
    pb.CALL_INTERVAL_DAY: DAY_MS,
}
METRICS = frozenset(pb.CallMetric.values()) - {pb.CALL_METRIC_UNSPECIFIED}

HOURLY_MS_MAX = 3 * DAY_MS
"""Longest time range without intervals that is summed up by hours."""


def sums_query(request: SumsRequest, scope: CallScope, limit: int) -> SumsQuery:
    """Return the query of at most `limit` groups. Raise Failure INVALID_FIELD."""
    span_ms = _span_ms(request)
    asked = list(request.group_by)
    if not set(asked) <= DIMENSIONS.keys() or len(set(asked)) < len(asked):
        raise invalid("group_by", "group_by must be different values of CallDimension")
    if pb.CALL_DIMENSION_CHANNEL in asked and not scope.is_operator:
        raise invalid("group_by", "CALL_DIMENSION_CHANNEL is for operators")
    metrics = set(request.metrics)
    if not metrics <= METRICS:
        raise invalid("metrics", "metrics must be values of CallMetric")
    if pb.CALL_METRIC_DURATIONS in metrics and labels_of_sums(request):
        raise invalid("metrics", "durations are not kept by end users and tags")
    return SumsQuery(
        selection=selection_of_sums(request, scope, span_ms),
        span_ms=span_ms,
        by_interval=request.interval != pb.CALL_INTERVAL_UNSPECIFIED,
        dimensions=[name for each in asked for name in DIMENSIONS[each]],
        durations=not metrics or pb.CALL_METRIC_DURATIONS in metrics,
        limit=limit,
    )


def _span_ms(request: SumsRequest) -> int:
    """Return the length of the intervals whose sums are read."""
    if request.interval == pb.CALL_INTERVAL_UNSPECIFIED:
        start_ms, end_ms = time_range_ms(request)
        return HOUR_MS if end_ms - start_ms <= HOURLY_MS_MAX else DAY_MS
    span_ms = SPANS_MS.get(request.interval)
    if span_ms is None:
        raise invalid("interval", "interval must be CALL_INTERVAL_HOUR or CALL_INTERVAL_DAY")
    return span_ms


def wanted(sums: CallSums, metrics: Collection[int]) -> CallSums:
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
