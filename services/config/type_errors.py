"""Messages about values of a wrong type, with the place and what is allowed there."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping

import msgspec

from services.config.rules import label, struct_in
from services.config.schema import Config

_MISSING = re.compile(r"Object missing required field `(\w+)`")


def located(message: str, tables: Mapping[str, object]) -> str:
    """Turn msgspec's `reason - at `$.channels[0].weight`` into `channels[0] (name).weight: reason`.

    `tables` are those of the file.
    """
    reason, _, place = message.partition(" - at ")
    path = place.strip("`").removeprefix("$").removeprefix(".")
    if missing := _MISSING.fullmatch(reason):
        path, reason = f"{path}.{missing[1]}".removeprefix("."), "is missing"
    elif reason.startswith("Invalid enum value") and (allowed := ", ".join(_allowed(path))):
        reason = f"{reason.removeprefix('Invalid enum value ')} is not one of {allowed}"
    elif reason == "Expected `array`, got `object`" and "." not in path:
        reason = f"expected rows, each of which begins with [[{path}]]"
    text = reason[:1].lower() + reason[1:].replace("`object`", "table").replace("`", "")
    return f"{_named(path, tables) or 'the file'}: {text}"


def _named(path: str, tables: Mapping[str, object]) -> str:
    """Return the path with the name of its row, if that has one."""
    row = re.match(r"(\w+)\[(\d+)\]", path)
    rows = tables.get(row[1]) if row else None
    if row and isinstance(rows, list) and isinstance(rows[int(row[2])], Mapping):
        index = int(row[2])
        return label(row[1], index, rows[index]) + path[row.end() :]
    return path


def _allowed(path: str) -> Iterator[str]:
    """Yield the values that the key at `path` may have, in TOML's form."""
    kind: object = Config
    for step in path.split("."):
        shape = struct_in(kind)
        types = {field.name: field.type for field in msgspec.structs.fields(shape)} if shape else {}
        kind = types.get(step.partition("[")[0])
    for candidate in (kind, *typing.get_args(kind)):
        if typing.get_origin(candidate) is typing.Literal:
            yield from (f"'{value}'" for value in typing.get_args(candidate))
        elif candidate is bool:
            yield from ("true", "false")
        elif typing.get_origin(candidate) is tuple:
            yield "an array"
