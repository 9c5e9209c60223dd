"""Fields that may be passed on to a provider that bills them: the table, and its kinds of values.

A field that is not in the table may cost money, keep data or hold an address.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import Any

import msgspec

FIELDS_FILE = "harmless_fields.toml"
MEMBERS_FILE = "harmless_members.toml"

REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
"""Keywords of a JSON schema whose value is an address that may be fetched."""

TOP_LOGPROBS_MAX = 20
"""The most alternatives of a token. Servers that give any number answer with megabytes a token."""

Kind = str | Mapping[str, "Kind"]
"""Kind of a value, or the kinds of an object's fields by their folded names."""


def folded(name: str) -> str:
    """Return a field's name without case, `_`, `-` and other signs, for comparison."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(char for char in plain if char.isalnum())


def harmless(name: str, value: object, held: list[str]) -> object:
    """Return the part of a decoded field that may be passed on; None if no part of it may.

    The names of parts that are left out are added to `held`, such as `chat_template_kwargs.x`.
    """
    return harmless_part(_table(FIELDS_FILE).get(folded(name)), name, value, held)


def member_kinds(place: str) -> Mapping[str, Kind]:
    """Kinds of the members of an object within a request, such as `message`, by folded name."""
    kinds = _table(MEMBERS_FILE).get(folded(place), {})
    return kinds if isinstance(kinds, Mapping) else {}


def harmless_part(kind: Kind | None, name: str, value: object, held: list[str]) -> object:
    """Return the part of a value that its kind lets pass; None if no part of it does."""
    if isinstance(kind, Mapping) and isinstance(value, Mapping):
        members = {
            key: part
            for key, each in value.items()
            if (part := harmless_part(kind.get(folded(key)), f"{name}.{key}", each, held))
            is not None
        }
        return members if members or not value else None
    if isinstance(kind, str) and _CHECKS[kind](value):
        return value
    if value is not None:  # Null means absent.
        held.append(name)
    return None


def _is_plain(value: object) -> bool:
    return not any(isinstance(each, dict) for each in _nested(value))


def _is_few(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= TOP_LOGPROBS_MAX


def _is_off(value: object) -> bool:
    return value is False


def _is_schema(value: object) -> bool:
    """Return whether a schema, or its text, refers to nothing outside of itself."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (ValueError, RecursionError):
            return False
    objects = (each for each in _nested(value) if isinstance(each, dict))
    references = (each[key] for each in objects for key in REFERENCES if key in each)
    return all(isinstance(each, str) and each.startswith("#") for each in references)


def _nested(value: object) -> Iterator[object]:
    """Yield a value and all values in it, in no order, at any depth."""
    values = [value]
    while values:
        yield (each := values.pop())
        if isinstance(each, dict):
            values += each.values()
        elif isinstance(each, list):
            values += each


_CHECKS: Mapping[str, Callable[[object], bool]] = {
    "plain": _is_plain,
    "few": _is_few,
    "off": _is_off,
    "schema": _is_schema,
}


@functools.cache
def _table(file: str) -> Mapping[str, Kind]:
    text = resources.files(__package__).joinpath(file).read_bytes()
    return _by_folded_name(msgspec.toml.decode(text, type=dict[str, Any]))


def _by_folded_name(rows: Mapping[str, Any]) -> Mapping[str, Kind]:
    return {
        folded(name): kind if isinstance(kind, str) else _by_folded_name(kind)
        for name, kind in rows.items()
    }
