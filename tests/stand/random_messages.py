"""Random messages of any type, with fields at their bounds, and their bytes with faults."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

I32, I64 = 2**31, 2**63
NUMBERS: Mapping[int, Sequence[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: (0, 1, 2, 20, 1000, -1, I32 - 1, -I32),
    FieldDescriptor.CPPTYPE_INT64: (0, 1, 60, 10**9, -1, I64 - 1, -I64, 10**18),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2 * I32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2 * I64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: (
        0.0,
        0.5,
        1.0,
        -0.0,
        1e308,
        5e-324,
        float("nan"),
        float("inf"),
    ),
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, 0.5, 1.0, -1.0, 3e38, float("nan"), float("-inf")),
    FieldDescriptor.CPPTYPE_BOOL: (True, False),
}
TEXTS = (
    *(
        "",
        "a",
        "acme",
        "*",
        "\0",
        "наш",
        "\U0001f4a5" * 70,
        "x" * 5000,
        "a=b",
        "{}",
        "%",
        "\n",
        " ",
    ),
    *('{"type":"object"}', "[", "9" * 400, '{"a":1e999}', "NaN", '"\\ud800"', "[" * 3000, "\u2028"),
    *(
        "https://a.example/a.png",
        "data:image/png;base64,AAAA",
        "data:,",
        "http://[",
        "max",
        "system",
    ),
    *('{"model":"m","messages":[]}', "image/png", "low", "r-1", "ephemeral", "-1", "\x7f", "﷐"),
)
BYTES = (
    b"",
    b"\xff",
    b"a",
    b"{}",
    b"\x89PNG\r\n\x1a\n" + bytes(20),
    b"[" * 3000,
    b'{"a":"\\ud800"}',
)
PIECES = (b"", b"\xff", b"\0", b"\x80" * 11, b"\x08\x01", b"\x0a\x01\xff", b"\x0b", b"\xfa\xff\x01")


def random_message(
    kind: Descriptor, chance: random.Random, names: Mapping[str, Sequence[str]], depth: int = 7
) -> Any:
    """Return a message. `names` are good values of texts by the name of their field."""
    message: Any = GetMessageClass(kind)()
    share = chance.choice((0.1, 0.3, 0.6, 0.9))
    for each in kind.fields:
        is_deep = each.message_type is not None and depth == 0
        if is_deep or chance.random() > (0.9 if each.name in names else share):
            continue
        _set(message, each, chance, names, depth)
    return message


def _set(
    message: Any,
    each: FieldDescriptor,
    chance: random.Random,
    names: Mapping[str, Sequence[str]],
    depth: int,
) -> None:
    inner, held = each.message_type, getattr(message, each.name)
    if inner is not None and inner.GetOptions().map_entry:
        value = inner.fields_by_name["value"]
        for _ in range(chance.randrange(3)):
            key = _scalar(inner.fields_by_name["key"], chance, names)
            if value.message_type is None:
                held[key] = _scalar(value, chance, names)
            else:
                held[key].CopyFrom(random_message(value.message_type, chance, names, depth - 1))
    elif each.is_repeated:
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            if inner is None:
                held.append(_scalar(each, chance, names))
            else:
                held.append(random_message(inner, chance, names, depth - 1))
    elif inner is None:
        setattr(message, each.name, _scalar(each, chance, names))
    else:
        held.SetInParent()
        held.CopyFrom(random_message(inner, chance, names, depth - 1))


def _scalar(
    each: FieldDescriptor, chance: random.Random, names: Mapping[str, Sequence[str]]
) -> Any:
    if each.enum_type is not None:
        numbers = [value.number for value in each.enum_type.values]
        return chance.choice([*numbers * 3, 99, -1, I32 - 1])
    if each.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice(BYTES)
    if each.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        good = names.get(each.name)
        return chance.choice(good if good and chance.random() < 0.8 else TEXTS)
    return chance.choice(NUMBERS[each.cpp_type])


def broken(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes of a message with a few that are others, more or fewer."""
    for _ in range(chance.randint(1, 3)):
        at, size = chance.randrange(len(data) + 1), chance.randint(0, 9)
        end = min(len(data), at + size)
        middle = chance.choice((data[at:end] * 2, chance.choice(PIECES), chance.randbytes(size)))
        data = data[:at] + middle + data[chance.choice((at, end)) :]
    return data


def mutate(message: Any, chance: random.Random, names: Mapping[str, Sequence[str]]) -> None:
    """Change a few fields of a message and of those in it."""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        at = chance.choice(list(_messages(message)))
        if not at.DESCRIPTOR.fields:
            continue
        each = chance.choice(at.DESCRIPTOR.fields)
        if chance.random() < 0.2:
            at.ClearField(each.name)
        else:
            _set(at, each, chance, names, depth=3)


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            yield from _messages(each)
