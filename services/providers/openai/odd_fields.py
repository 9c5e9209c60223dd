"""Fields of unexpected types: read in the expected one where they can be, else as null."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from services.common.json_errors import NOT_JSON
from services.providers.unusable_answers import unreadable

ODD_FIELDS_MAX = 32
"""Fields of one text that are mended."""

_T = TypeVar("_T")
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)


def read(data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode JSON with its odd fields mended. Raises UPSTREAM_BAD_RESPONSE if it cannot be read."""
    try:
        for _ in range(ODD_FIELDS_MAX):
            try:
                return decoder.decode(data)
            except msgspec.ValidationError as error:
                found: object = msgspec.json.decode(data)
                if not _mend(found, str(error)):
                    break
            data = msgspec.json.encode(found)
    except NOT_JSON:
        pass
    raise unreadable()


def _mend(found: object, complaint: str) -> bool:
    """Mend the field that msgspec names: "Expected `str`, … - at `$.choices[0].id`".

    Return whether there is such a field.
    """
    expected, _, place = complaint.rpartition("`$")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", place)
    for name, index in steps[:-1]:
        found = _child(found, name, index)
    name, index = steps[-1] if steps else ("", "")
    if isinstance(found, dict) and name in found:
        found[name] = _meant(found[name], expected.partition(", got")[0])
    elif isinstance(found, list) and index:
        del found[int(index)]
    else:
        return False
    return True


def _child(found: object, name: str, index: str) -> object:
    if isinstance(found, dict):
        return found.get(name)
    return found[int(index)] if isinstance(found, list) and index else None


def _meant(value: object, expected: str) -> object:
    """Return the value in an expected type: an item of a list, or the same number. Else None."""
    if isinstance(value, dict):
        return [value] if "array" in expected else None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
        return int(number) if "int" in expected else number if "float" in expected else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and "str" in expected else None
