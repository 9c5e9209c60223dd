"""Fields of unexpected types, which count as null."""

from __future__ import annotations

import re


def forget(found: object, complaint: str) -> bool:
    """Set the field that msgspec names to null: "Expected `str`, … - at `$.choices[0].id`"."""
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", complaint.rpartition("`$")[2])
    for name, index in steps[:-1]:
        found = _child(found, name, index)
    name, index = steps[-1] if steps else ("", "")
    if isinstance(found, dict) and name in found:
        found[name] = None
    elif isinstance(found, list) and index:
        del found[int(index)]
    else:
        return False
    return True


def _child(found: object, name: str, index: str) -> object:
    if isinstance(found, dict):
        return found.get(name)
    return found[int(index)] if isinstance(found, list) and index else None
