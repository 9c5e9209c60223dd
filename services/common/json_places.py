"""Places in JSON text: members of an object, and the bytes of a string in it, without decoding it.

Texts of any size are read at the speed of C where they are written without white space, as nearly
all clients write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import msgspec

from services.common.json_errors import NOT_JSON

SKIMMED = 4
"""Bytes that this module reads in the time in which one is decoded."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode
_STRING_TOKEN = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN = re.compile(_STRING_TOKEN + rb"|[\[\]{}:,]", re.DOTALL)
_NAME = re.compile(rb'[ \t\r\n,]*"[^"\\]*(?:\\.[^"\\]*)*"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
"""Bytes between the value of a member and that of the next one."""
_SPACE = re.compile(rb"[ \t\r\n]*")


def members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object, each as its own JSON text.

    Raises ValueError: it is no JSON object, or it has a name twice, of which readers could take
    either.
    """
    try:
        found = _OBJECT.decode(text)
    except NOT_JSON as error:
        raise ValueError(str(error)) from None
    if _encode(found) != text and not _are_all(found, text) and _has_name_twice(bytes(text)):
        raise ValueError("a member of the object is there twice")
    return found


def with_members(
    text: bytes, found: Mapping[str, msgspec.Raw], new: Mapping[str, msgspec.Raw]
) -> bytes:
    """Return an object with other values of its members, all other bytes as they are.

    `found` are the members of `text`, as `members` returns them: at least one. `new` are the values
    by their names; members that the object lacks come first.
    """
    lacking = {name: value for name, value in new.items() if name not in found}
    if _encode(found) == text:  # As nearly all clients write it.
        return _encode({**lacking, **found, **new})
    done = at = text.index(b"{") + 1
    pieces = [text[:at], *(b"%b:%b," % (_encode(name), bytes(lacking[name])) for name in lacking)]
    left = len(new) - len(lacking)
    for name, value in found.items():
        if not left:
            break
        head = _NAME.match(text, at)
        if head is None:
            raise ValueError("the members are not those of the text")
        begin, at = head.end(), head.end() + len(memoryview(value))
        if name in new:
            pieces += [text[done:begin], bytes(new[name])]
            done, left = at, left - 1
    pieces.append(text[done:])
    return b"".join(pieces)


def replace_string(text: bytes, path: Sequence[str], value: str) -> bytes:
    """Return JSON text with another value of the string at `path`, all other bytes as they are.

    Text without a string there is returned as it is.
    """
    near = _string_behind_plain_members(path[0]).match(text) if len(path) == 1 else None
    span = near.span(1) if near is not None else _string_at(text, path)
    if span is None:
        return text
    begin, end = span
    return b"%b%b%b" % (text[:begin], msgspec.json.encode(value), text[end:])


def _are_all(found: Mapping[str, msgspec.Raw], text: bytes | msgspec.Raw) -> bool:
    """Whether the text has these members alone, white space aside: no name is there twice.

    False also where a name has escapes.
    """
    signs = 1 + max(1, len(found)) + 3 * len(found)  # Braces and commas; of each name `"":`.
    names, values = "".join(found).encode(), found.values()
    size = signs + len(names) + sum([len(memoryview(value)) for value in values])
    if size == len(memoryview(text)):
        return True
    return signs + _dense_size(names) + sum(map(_dense_size, values)) == _dense_size(text)


def _dense_size(text: bytes | msgspec.Raw) -> int:
    """Return the number of bytes that are no white space."""
    return len(bytes(text).translate(None, b" \t\r\n"))


def _has_name_twice(text: bytes) -> bool:
    names = [_STRING.decode(text[begin:end]) for begin, end in _names(text)]
    return len(names) != len(set(names))


def _names(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the names of the outermost object's members are."""
    depth = 0
    string = (0, 0)
    for token in _TOKEN.finditer(text):
        match text[token.start()]:
            case 0x22:  # a quotation mark
                string = token.span()
            case 0x3A if depth == 1:  # a colon
                yield string
            case 0x5B | 0x7B:  # opening brackets
                depth += 1
            case 0x5D | 0x7D:
                depth -= 1


def _string_at(text: bytes, path: Sequence[str]) -> tuple[int, int] | None:
    """Return where the string at `path` begins and ends; None if no string is there."""
    at = 0
    for name in path:
        found = _value_of(text, at, name)
        if found is None:
            return None
        at = found
    token = _TOKEN.match(text, at)
    return token.span() if token is not None and token[0].startswith(b'"') else None


def _value_of(text: bytes, at: int, name: str) -> int | None:
    """Return where the value of a member of the object at this position begins."""
    if near := _behind_plain_members(name).match(text, at):
        return near.end()
    depth = 0
    string = b""
    for token in _TOKEN.finditer(text, at):
        match text[token.start()]:
            case 0x22:
                string = token[0]
            case 0x3A if depth == 1 and _is_name(string, name):
                space = _SPACE.match(text, token.end())
                return space.end() if space is not None else None
            case 0x5B | 0x7B:
                depth += 1
            case 0x5D | 0x7D:
                depth -= 1
                if depth == 0:
                    return None
            case _ if depth == 0:
                return None  # The value is no object.
    return None


@cache
def _behind_plain_members(name: str) -> re.Pattern[bytes]:
    """Return the pattern of an object up to a value before which no value is a list or an object.

    Most are so, and the pattern is matched at the speed of C.
    """
    return re.compile(_plain_members_before(name), re.DOTALL)


@cache
def _string_behind_plain_members(name: str) -> re.Pattern[bytes]:
    """Return the pattern of such an object up to a string, which is its group."""
    return re.compile(rb"%b(%b)" % (_plain_members_before(name), _STRING_TOKEN), re.DOTALL)


def _plain_members_before(name: str) -> bytes:
    own = re.escape(name.encode())
    plain = _STRING_TOKEN + rb"|[-+.\deE]+|true|false|null"
    before = rb'"(?!%b")[^"\\]*"\s*:\s*(?:%b)\s*,\s*' % (own, plain)
    return rb'\s*\{\s*(?:%b)*"%b"\s*:\s*' % (before, own)


def _is_name(string: bytes, name: str) -> bool:
    if b"\\" not in string:
        return string[1:-1] == name.encode()
    try:
        return _STRING.decode(string) == name
    except NOT_JSON:
        return False
