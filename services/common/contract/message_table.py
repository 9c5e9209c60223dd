"""Message table: a protobuf message and a struct of the domain with the same fields.

A table is made from the message's descriptor: a field of the message is the field of the struct
with the same name. Enums are words in the domain: `ROLE_USER` is `user`, the value 0 is empty. A
number without a name becomes its digits, and so comes back as it was. JSON, which is bytes in the
domain, is a `string` of the contract.

Messages are filled in place: protobuf copies a finished message that is put into another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Self, TypeVar

import msgspec
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

S = TypeVar("S", bound=msgspec.Struct)
M = TypeVar("M", bound=Message)

Write = Callable[[Any, str, Any], None]
"""Writes a value of the domain into the field of that name of a message."""


class UntranslatableError(ValueError):
    """A message that the domain cannot express. The text says why."""

    path = ""
    """The field at fault, such as `messages[2].content[0]`."""

    def within(self, field: str) -> Self:
        """Note the field, or the `[index]`, that contains the fault. Returns the error."""
        separator = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{field}{separator}{self.path}"
        return self


class Translation(NamedTuple):
    """The two directions of one message."""

    read: Callable[[Any], Any]
    """Returns the domain's value of a message. Raises UntranslatableError."""
    fill: Callable[[Any, Any], None]
    """Writes a domain's value into an empty message."""


def to_json_text(json: bytes) -> str:
    """Return the domain's JSON as a string. Bytes that are not UTF-8 become U+FFFD."""
    return json.decode("utf-8", "replace")


class EnumWords:
    """Values of an enum as words, both ways."""

    def __init__(self, enum: EnumDescriptor) -> None:
        prefix = _enum_prefix(enum.name)
        values = enum.values_by_number.values()
        self._words = {value.number: value.name.removeprefix(prefix).lower() for value in values}
        self._words[0] = ""
        self._numbers = {word: number for number, word in self._words.items()}

    def word(self, number: int) -> str:
        """Return the word of a number; its digits where this version has no word."""
        word = self._words.get(number)
        return str(number) if word is None else word

    def words(self, numbers: Sequence[int]) -> list[str]:
        """Return the word of each number."""
        return [self.word(number) for number in numbers]

    def number(self, word: str) -> int:
        """Return the number of a word. Raises ValueError: it is not one of the enum."""
        number = self._numbers.get(word)
        return int(word) if number is None else number


class MessageTable(Generic[S, M]):
    """A struct and its message, with the fields that both have.

    `nested` translates the fields that are messages, or lists of messages. `names` has the struct's
    names where they differ from the message's.
    """

    def __init__(
        self,
        struct: type[S],
        message: type[M],
        nested: Mapping[str, Translation] = {},
        names: Mapping[str, str] = {},
    ) -> None:
        self.struct = struct
        self._message = message
        self._readers: dict[str, tuple[str, Callable[[Any], Any]]] = {}
        self._writers: list[tuple[str, str, bool, Write]] = []
        """Of each field: its name here, its name there, whether an empty value is one."""
        self._required: dict[str, Any] = {
            field.name: _EMPTY.get(field.type, "")
            for field in msgspec.structs.fields(struct)
            if field.required
        }
        json_names = {field.name for field in msgspec.structs.fields(struct) if field.type is bytes}
        for field in message.DESCRIPTOR.fields:
            name = names.get(field.name, field.name)
            if field.name in nested:
                self._add_nested(name, field, nested[field.name])
            elif name in json_names and field.type == field.TYPE_STRING:
                self._readers[field.name] = name, str.encode
                self._writers.append((name, field.name, False, _setting_json))
            else:
                self._add_plain(name, field)

    @property
    def translation(self) -> Translation:
        """The two directions, for a table whose message has this one as a field."""
        return Translation(self.read, self.fill)

    def read(self, message: Any) -> S:
        """Return the struct of a message. Raises UntranslatableError."""
        return self.struct(**self.values(message))

    def values(self, message: Any) -> dict[str, Any]:
        """Return the struct's arguments. Raises UntranslatableError."""
        values = dict(self._required)
        readers = self._readers
        for field, value in message.ListFields():
            name, read = readers[field.name]
            try:
                values[name] = read(value)
            except UntranslatableError as error:
                raise error.within(field.name) from None
        return values

    def to_message(self, struct: S) -> M:
        """Return a struct as a message."""
        message = self._message()
        self.fill(struct, message)
        return message

    def fill(self, struct: S, message: Any) -> None:
        """Write a struct into an empty message."""
        for name, field, has_presence, write in self._writers:
            value = getattr(struct, name)
            if value or (has_presence and value is not None):
                write(message, field, value)

    def _add_nested(self, name: str, field: Any, row: Translation) -> None:
        read = row.read
        if field.is_repeated:
            self._readers[field.name] = name, lambda messages: _read_all(read, messages)
            self._writers.append((name, field.name, False, _filling_all(row.fill)))
        else:
            self._readers[field.name] = name, read
            self._writers.append((name, field.name, True, _filling(row.fill)))
            if name in self._required:
                self._required[name] = read(GetMessageClass(field.message_type)())

    def _add_plain(self, name: str, field: Any) -> None:
        read: Callable[[Any], Any] = _same
        write: Write = setattr
        has_presence = False
        if field.enum_type is not None:
            words = EnumWords(field.enum_type)
            if field.is_repeated:
                read, write = words.words, _extending_numbers(words)
            else:
                read, write = words.word, _setting_number(words)
        elif field.message_type is not None:
            if not field.message_type.GetOptions().map_entry:
                raise TypeError(f"{field.full_name} is a message without a translation")
            read, write = dict, _updating
        elif field.is_repeated:
            read, write = list, _extending
        else:
            # Of a union an empty member is as good as none.
            union = field.containing_oneof
            has_presence = union is not None and len(union.fields) == 1
        self._readers[field.name] = name, read
        self._writers.append((name, field.name, has_presence, write))


_EMPTY: Mapping[object, object] = {int: 0, bytes: b""}
"""Values of required fields that a message does not have."""


def _same(value: Any) -> Any:
    return value


def _read_all(read: Callable[[Any], Any], messages: Sequence[Any]) -> list[Any]:
    made: list[Any] = []
    try:
        for message in messages:
            made.append(read(message))  # noqa: PERF401 - the index of a fault is needed
    except UntranslatableError as error:
        raise error.within(f"[{len(made)}]") from None
    return made


def _extending(message: Any, name: str, values: Sequence[object]) -> None:
    getattr(message, name).extend(values)


def _updating(message: Any, name: str, values: Mapping[object, object]) -> None:
    getattr(message, name).update(values)


def _setting_json(message: Any, name: str, value: bytes) -> None:
    setattr(message, name, to_json_text(value))


def _setting_number(words: EnumWords) -> Write:
    def write(message: Any, name: str, word: str) -> None:
        setattr(message, name, words.number(word))

    return write


def _extending_numbers(words: EnumWords) -> Write:
    def write(message: Any, name: str, values: Sequence[str]) -> None:
        getattr(message, name).extend(map(words.number, values))

    return write


def _filling(fill: Callable[[Any, Any], None]) -> Write:
    def write(message: Any, name: str, value: object) -> None:
        made = getattr(message, name)
        made.SetInParent()
        fill(value, made)

    return write


def _filling_all(fill: Callable[[Any, Any], None]) -> Write:
    def write(message: Any, name: str, values: Sequence[object]) -> None:
        add = getattr(message, name).add
        for value in values:
            fill(value, add())

    return write


def _enum_prefix(name: str) -> str:
    """Return the prefix of an enum's values: `TOOL_CHOICE_MODE_` for `ToolChoiceMode`."""
    return "".join(f"_{char}" if char.isupper() else char for char in name).upper()[1:] + "_"
