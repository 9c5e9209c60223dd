"""Fields that the operators' services have in common, checked and translated."""

from __future__ import annotations

import re

from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1.ledger_service_pb2 import ReportUsageRequest
from pomogator.chat.v1 import error_reason_pb2 as reasons
from pomogator.usage.v1.usage_service_pb2 import ListUsageRequest

from services.errors import Failure

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")

NANO_MAX = 2**60
"""The most nano-USD in one field: a billion dollars, far from where sums overflow."""

END_OF_TIME_MS = 253_402_300_800_000
"""The year 10000, in milliseconds since 1970: times in messages end there."""


def account_name(name: str) -> str:
    """The name, if it may be an account's. INVALID_FIELD if not."""
    if not ACCOUNT_NAME.fullmatch(name):
        raise invalid("account", "account is 1 to 64 letters, digits, `_-.@`")
    return name


def in_range(param: str, value: int, least: int, most: int = NANO_MAX) -> int:
    """The value, if it is in range. INVALID_FIELD if not."""
    if not least <= value <= most:
        raise invalid(param, f"{param} is in [{least}, {most}]")
    return value


def milliseconds(param: str, time: Timestamp) -> int:
    """A time as the database has it. INVALID_FIELD where it is none, or before 1970."""
    try:
        return in_range(param, time.ToMilliseconds(), 0)
    except ValueError:
        raise invalid(param, f"{param} is not a time from year 1 to 9999") from None


def time_range_ms(request: ReportUsageRequest | ListUsageRequest) -> tuple[int, int]:
    """The span, [start, end) in milliseconds since 1970. INVALID_FIELD if it ends too early."""
    start_ms = milliseconds("start_time", request.start_time)
    if not request.HasField("end_time"):
        return start_ms, END_OF_TIME_MS
    end_ms = milliseconds("end_time", request.end_time)
    if end_ms < start_ms:
        raise invalid("end_time", "end_time is not before start_time")
    return start_ms, end_ms


def timestamp(milliseconds: int) -> Timestamp:
    """A time of the database, as messages have it."""
    message = Timestamp()
    message.FromMilliseconds(milliseconds)
    return message


def invalid(param: str, message: str) -> Failure:
    """The failure of a field."""
    return Failure(reasons.ERROR_REASON_INVALID_FIELD, message, param=param)


def not_found(param: str, message: str) -> Failure:
    """The failure of a name that nothing has."""
    return Failure(reasons.ERROR_REASON_NOT_FOUND, message, param=param)
