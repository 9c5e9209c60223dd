"""Typed reading of one field's JSON, with errors that clients understand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from gateway.errors import invalid

T = TypeVar("T")

# "Expected `str`, got `int` - at `$[0].role`": the words of msgspec 0.2x, in JSON's terms.
_AT = re.compile(r" - at `(?:key in )?\$?([^`]*)`$")
_QUOTED = re.compile(r"`([^`]*)`")
_JSON_TYPES: Mapping[str, str] = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
}


def read(param: str, raw: msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> T:
    """The value of the field `param`.

    Raises:
        ApiError: it has another shape. Its `param` is the path to the fault.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        text = str(error)
        at = _AT.search(text)
        path = param + (at[1].replace("[...]", "") if at else "")
        raise invalid(path, f"Invalid {path}: {_in_json_terms(_AT.sub('', text))}.") from None


def _in_json_terms(text: str) -> str:
    def term(match: re.Match[str]) -> str:
        kinds = match[1].replace("int | float", "float")  # integers are numbers
        words = [_JSON_TYPES.get(word, word) for word in kinds.split(" | ")]
        return " or ".join(dict.fromkeys(words))

    return _QUOTED.sub(term, text)


def one_of(param: str, value: str, table: Mapping[str, T]) -> T:
    """What `table` has for `value`.

    Raises:
        ApiError: it has nothing. The message lists what there is.
    """
    try:
        return table[value]
    except KeyError:
        choices = ", ".join(f"`{choice}`" for choice in table)
        raise invalid(param, f"Invalid {param}: expected one of {choices}.") from None


def integer(param: str, value: float, bits: int) -> int:
    """`value` as an integer of so many bits; 1.0 is 1, as JSON does not tell them apart.

    Raises:
        ApiError: it has a fraction, or does not fit.
    """
    whole = int(value)
    if whole != value:
        raise invalid(param, f"Invalid {param}: expected an integer.")
    if not -(1 << (bits - 1)) <= whole < 1 << (bits - 1):
        raise invalid(param, f"Invalid {param}: the number is too large.")
    return whole
