"""JSON fields: typed reading of one field, with errors in JSON's terms."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

import msgspec

from gateway.errors import invalid
from gateway.http.strict_json import is_null
from services.common.json_errors import NOT_JSON

T = TypeVar("T")
W = TypeVar("W", bound=str)

# "Expected `str`, got `int` - at `$[0].role`": the words of msgspec 0.2x, in JSON's terms.
_AT = re.compile(r" - at `(?:key in )?\$?([^`]*)`$")
_QUOTED = re.compile(r"`([^`]*)`")
_JSON_TYPES: Mapping[str, str] = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
}

_STRING = msgspec.json.Decoder(str)
_BOOL = msgspec.json.Decoder(bool)
_NUMBER = msgspec.json.Decoder(int | float)
_FLOAT = msgspec.json.Decoder(float)


def read(param: str, raw: msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the value of the field `param`.

    Raises ApiError: the value has another shape. The error's `param` is the path to the fault.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        text = str(error)
        at = _AT.search(text)
        path = param + (at[1].replace("[...]", "") if at else "")
        raise invalid(path, f"Invalid {path}: {_in_json_terms(_AT.sub('', text))}.") from None
    except NOT_JSON:  # Members of a raw request have not been read before.
        raise invalid(param, f"Invalid {param}: the value cannot be read as JSON.") from None


def _in_json_terms(text: str) -> str:
    def term(match: re.Match[str]) -> str:
        kinds = match[1].replace("int | float", "float")  # integers are numbers
        words = [_JSON_TYPES.get(word, word) for word in kinds.split(" | ")]
        return " or ".join(dict.fromkeys(words))

    return _QUOTED.sub(term, text)


def one_of(param: str, value: str, words: Collection[W]) -> W:
    """Return the word of `words` that `value` is.

    Raises ApiError: `value` is not in `words`. The message lists the words.
    """
    for word in words:
        if word == value:
            return word
    choices = ", ".join(f"`{choice}`" for choice in words)
    raise invalid(param, f"Invalid {param}: expected one of {choices}.")


def integer(param: str, value: float, bits: int) -> int:
    """Return `value` as a signed integer of `bits` bits. 1.0 is 1: JSON has one type of number.

    Raises ApiError: the value has a fraction, or does not fit.
    """
    whole = int(value)
    if whole != value:
        raise invalid(param, f"Invalid {param}: expected an integer.")
    if not -(1 << (bits - 1)) <= whole < 1 << (bits - 1):
        raise invalid(param, f"Invalid {param}: the number is too large.")
    return whole


def text(param: str, raw: msgspec.Raw) -> str:
    """Return a field that is a string."""
    return read(param, raw, _STRING)


def number(param: str, raw: msgspec.Raw) -> float:
    """Return a field that is a number."""
    return read(param, raw, _FLOAT)


def int32(param: str, raw: msgspec.Raw) -> int:
    """Return a field that is an integer of 32 bits."""
    return integer(param, read(param, raw, _NUMBER), 32)


def int64(param: str, raw: msgspec.Raw) -> int:
    """Return a field that is an integer of 64 bits."""
    return integer(param, read(param, raw, _NUMBER), 64)


def boolean(param: str, raw: msgspec.Raw) -> bool:
    """Return a field that is true or false."""
    return read(param, raw, _BOOL)


def json_of(raw: msgspec.Raw) -> bytes:
    """Return the JSON of an optional value; empty where it is absent or `null`."""
    return b"" if is_null(raw) else bytes(raw)
