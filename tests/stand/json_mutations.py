"""Changes of JSON texts, member by member: values of other types, and texts that are no JSON."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

HOSTILE: Sequence[bytes] = (
    *(b"null", b"true", b"false", b"0", b"-0", b"1", b"-1", b"1.5", b"1e3", b"1e999", b"-1e-999"),
    *(b"9" * 40, b"9223372036854775808", b"-9223372036854775809", b"2147483648", b"1.0", b"1e400"),
    *(b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x10", b"1_0", b"nul"),
    *(b'""', b'"a"', b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b'"\xed\xa0\x80"'),
    *(b'"\\q"', b'"\x01"', b'"\n"', b'"', b"'a'", b'"' + b"x" * 20_000 + b'"', b'"\xef\xbf\xbf"'),
    *('"\u202e\U0001f4a5\u2028"'.encode(), b'"%s%n"', b'"\\u00e9"', b'"NaN"', b'"1e999"', b'"-1"'),
    *(b"[]", b"{}", b"[[]]", b"[null]", b"[{}]", b'[""]', b"[1]", b'{"":""}', b'{"a":{"a":[{}]}}'),
    *(b"[" * 40 + b"]" * 40, b"[" * 2000 + b"]" * 2000, b'{"a":' * 500 + b"1" + b"}" * 500),
    *(b"[" + b"1," * 500 + b"1]", b'{"type":"text","text":"a"}', b'{"type":null}', b'{"type":1}'),
    *(b'"2026-01-01T00:00:00Z"', b'"0001-01-01T00:00:00Z"', b'"-1s"', b'"9e9s"', b'"@type"'),
    *(b'{"@type":"type.googleapis.com/google.protobuf.Any"}', b"// a\n1", b"\xef\xbb\xbf1", b""),
)
"""Texts in place of a value."""
NAMES = ("", "a", "__proto__", "\0", "@type", "наш", "type", "x" * 300, "$ref", "key.scope", "\n")


class Text(bytes):
    """A text in place of a value of JSON."""


class Members(list[tuple[Any, Any]]):
    """Members of an object, of which several may have one name."""


def json_text(value: Any) -> bytes:
    """Return the text of a value, with those in place of values as they are."""
    if isinstance(value, Text):
        return bytes(value)
    if isinstance(value, dict):
        value = Members(value.items())
    if isinstance(value, Members):
        pairs = (_name(name) + b":" + json_text(each) for name, each in value)
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(json_text, value)) + b"]"
    return json.dumps(value).encode()


def _name(name: Any) -> bytes:
    return bytes(name) if isinstance(name, Text) else json.dumps(name).encode()


def mutated(value: Any, chance: random.Random) -> Any:
    """Return the value with a few changes."""
    root = [copy.deepcopy(value)]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        places = list(_places(root))
        holder, at = chance.choice(places)
        _change(holder, at, chance)
    return root[0]


def _places(value: Any) -> list[tuple[Any, Any]]:
    found = []
    for at, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, at))
        if isinstance(inner, dict | list) and not isinstance(inner, Members):
            found += _places(inner)
    return found


def _change(holder: Any, at: Any, chance: random.Random) -> None:
    """Change the value at a place: another one, another shape, or other members."""
    old = holder[at]
    kind = chance.randrange(10)
    if kind < 5:
        holder[at] = Text(chance.choice(HOSTILE))
    elif kind == 5:
        holder[at] = chance.choice(([old], {"a": old}, [old, old], [old] * 300, json.dumps("a")))
    elif kind == 6 and isinstance(old, dict):
        holder[at] = _other_members(old, chance)
    elif kind == 7 and isinstance(old, str) and old:
        cut = chance.randrange(len(old) + 1)
        fault = chance.choice((b"\xff", b"\\ud800", b"\\u0000", b"\\", b'"', b"\xf0\x9f"))
        halves = [json.dumps(part).encode()[1:-1] for part in (old[:cut], old[cut:])]
        holder[at] = Text(b'"' + halves[0] + fault + halves[1] + b'"')
    elif kind == 8 and isinstance(holder, dict):
        del holder[at]
    elif isinstance(old, list) and old:
        chance.shuffle(old)
    elif isinstance(old, dict):
        old[chance.choice(NAMES)] = Text(chance.choice(HOSTILE))
    else:
        holder[at] = chance.choice((not old, str(old) * 3, None, 10**30, -1.5, f"{old}\0"))


def _other_members(old: dict[str, Any], chance: random.Random) -> Members:
    members: Members = Members(old.items())
    if members and chance.random() < 0.6:
        name, value = chance.choice(members)
        members.append((name, chance.choice((value, Text(chance.choice(HOSTILE))))))
    else:
        fault = chance.choice((b'"\xff"', b'"\\ud800"', b'""', b"1", b"null", b'"\\u0061"', b"a"))
        members.append((Text(fault), 1))
    chance.shuffle(members)
    return members
