"""Message fields that several services share: validation and conversion."""

from __future__ import annotations

import re
from typing import Literal, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from services.domain.error_reason import ErrorReason
from services.errors import Failure, invalid
from services.storage.accounts import BALANCE_MAX

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")

REQUEST_ID = re.compile(r"[!-~]{1,128}")

NAME_CHARS_MAX = 512
"""The most characters of a name in a request. No column has a longer one."""

NANO_MAX = BALANCE_MAX
"""Maximum amount in one field, in nano-USD."""

END_OF_TIME_MS = 253_402_300_800_000
"""Year 10000 in milliseconds since 1970, where timestamps end."""


def account_name(name: str) -> str:
    """Return a valid account name. Raise Failure INVALID_FIELD."""
    if not ACCOUNT_NAME.fullmatch(name):
        raise invalid("account", "account must be 1 to 64 letters, digits or `_-.@`")
    return name


def valid_request_id(request_id: str) -> str:
    """Return a valid ID of a request. Raise Failure INVALID_FIELD."""
    if not REQUEST_ID.fullmatch(request_id):
        raise invalid("request_id", "request_id must be 1 to 128 visible ASCII characters")
    return request_id


def stored_name(param: str, name: str) -> str:
    """Return a name that a database can have. Raise Failure INVALID_FIELD for any other."""
    if len(name) > NAME_CHARS_MAX or "\x00" in name:
        raise invalid(param, f"{param} must have at most {NAME_CHARS_MAX} characters and no NUL")
    return name


def in_range(param: str, value: int, least: int, most: int = NANO_MAX) -> int:
    """Return a value that is in range. Raise Failure INVALID_FIELD."""
    if not least <= value <= most:
        raise invalid(param, f"{param} must be in [{least}, {most}]")
    return value


def int64(amount: int) -> int:
    """Return the amount, or the limit of the contract's integers that it exceeds."""
    return max(-(2**63), min(amount, 2**63 - 1))


def milliseconds(param: str, time: Timestamp) -> int:
    """Convert a timestamp to milliseconds since 1970. Raise Failure INVALID_FIELD."""
    try:
        return in_range(param, time.ToMilliseconds(), 0)
    except ValueError:
        raise invalid(param, f"{param} must be a time from year 1 to 9999") from None


class TimeRange(Protocol):
    """Request with a time range."""

    @property
    def start_time(self) -> Timestamp:
        """Earliest time."""

    @property
    def end_time(self) -> Timestamp:
        """Exclusive end."""

    def HasField(self, field_name: Literal["end_time"], /) -> bool:  # noqa: N802
        """Whether the end is set."""


def time_range_ms(request: TimeRange) -> tuple[int, int]:
    """Return [start, end) in milliseconds since 1970. Raise Failure INVALID_FIELD."""
    start_ms = milliseconds("start_time", request.start_time)
    if not request.HasField("end_time"):
        return start_ms, END_OF_TIME_MS
    end_ms = milliseconds("end_time", request.end_time)
    if end_ms < start_ms:
        raise invalid("end_time", "end_time must not be before start_time")
    return start_ms, end_ms


def timestamp(milliseconds: int) -> Timestamp:
    """Convert milliseconds since 1970 to a timestamp."""
    message = Timestamp()
    message.FromMilliseconds(milliseconds)
    return message


def not_found(param: str, message: str) -> Failure:
    """Return the failure for an unknown name."""
    return Failure(ErrorReason.NOT_FOUND, message, param=param)
