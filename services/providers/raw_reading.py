"""Reading of raw requests: members of their bodies, and words that their bytes have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from services.common.json_errors import NOT_JSON
from services.common.json_places import members
from services.common.json_values import VALUES_MAX, has_more_values
from services.domain.raw_request import RawRequest
from services.domain.spec import Tool
from services.errors import invalid

ABSENT = Raw()
EMPTY = frozenset({b"", b"null", b"[]", b"{}"})
"""Values that ask for nothing."""

_SOME_TOOL = Tool(name="")
_BACKSLASH = b"\\"
_HIDDEN_LETTER = re.compile(rb"\\u00[4-7]")
"""An escape of a letter, behind which a word could hide; no encoder writes one."""


class _OtherTool(msgspec.Struct, omit_defaults=True):
    type: str | None = None
    max_uses: object = None


def opened(body: bytes) -> Mapping[str, Raw]:
    """Return the members of a body. Raises Failure INVALID_FIELD."""
    try:
        return members(body)
    except ValueError as error:
        raise invalid("raw.body", f"The body cannot be read: {error}.") from None


def check_body(request: RawRequest) -> None:
    """Raise Failure INVALID_FIELD unless a body is in UTF-8, and has few enough values."""
    if request.members is not None:
        return  # An edge in the same process has checked it before it read the members.
    body = request.body
    try:
        body.isascii() or body.decode()
    except UnicodeDecodeError as error:
        message = f"The body is not valid UTF-8 at byte {error.start}."
        raise invalid("raw.body", message) from None
    if has_more_values(body):
        raise invalid("raw.body", f"The body has more than {VALUES_MAX} values.")


def read(
    name: str, found: Mapping[str, Raw], decoder: msgspec.json.Decoder[Any], default: Raw = ABSENT
) -> Any:
    """Return a member's value; that of `default` where it is absent. Raises INVALID_FIELD."""
    raw = found.get(name, default)
    if not memoryview(raw):
        raise invalid(name, f"{name}: Field required")
    try:
        return decoder.decode(raw)
    except NOT_JSON as error:
        raise invalid(name, f"{name}: {error}") from None


def lenient(raw: Raw | None, kind: type[Any]) -> Any:
    """Return a value; None where it is absent, or has another form."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except NOT_JSON:
        return None


def some_tools(raw: Raw, own: Collection[str | None]) -> list[Tool]:
    """Return the tools of types that the provider may run, and one for those of the `own` types."""
    if bytes(raw) in EMPTY:
        return []
    tools = lenient(raw, list[_OtherTool]) or ()  # The provider refuses unreadable ones.
    others = [msgspec.json.encode(tool) for tool in tools if tool.type not in own]
    return [_SOME_TOOL, *(Tool(name="", other_json=each) for each in others)]


def words_pattern(words: Iterable[bytes]) -> re.Pattern[bytes]:
    """Return the pattern of strings that begin with these words: its first group."""
    return re.compile(rb'"(%b)' % b"|".join(map(re.escape, words)))


def has_hidden_letter(body: bytes) -> bool:
    """Return whether a body has a letter as an escape: any word may hide there."""
    # One byte is found twenty times as fast as a pattern, and most bodies have no backslash.
    return _BACKSLASH in body and _HIDDEN_LETTER.search(body) is not None
