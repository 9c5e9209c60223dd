"""Fields that the operators' services have in common, checked and translated."""

from __future__ import annotations

import re

from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")

NANO_MAX = 2**60
"""The most nano-USD in one field: a billion dollars, far from where sums overflow."""


def account_name(name: str) -> str:
    """The name, if it may be an account's. INVALID_FIELD if not."""
    if not ACCOUNT_NAME.fullmatch(name):
        raise invalid("account", "account is 1 to 64 letters, digits, `_-.@`")
    return name


def within(param: str, value: int, least: int, most: int = NANO_MAX) -> int:
    """The value, if it is in range. INVALID_FIELD if not."""
    if not least <= value <= most:
        raise invalid(param, f"{param} is in [{least}, {most}]")
    return value


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
