"""Reasoning fragments: items of `reasoning_details`, which arrive in pieces in a stream.

Each piece has the type and the index of the item that it continues.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

Detail = dict[str, object]
"""An item of the array, or a fragment of one."""

OPEN_ITEMS_MAX = 16
"""The latest items that a fragment may continue. Without it many items would take the square of
their number in time."""

_GROWING = ("text", "summary", "data")
"""Members that arrive in fragments. Other members are sent once, or repeated."""


def gathered(fragments: Iterable[Mapping[str, object]]) -> list[Detail]:
    """Return the items that these fragments make."""
    details: list[Detail] = []
    for fragment in fragments:
        gather(fragment, details)
    return details


def gather(fragment: Mapping[str, object], details: list[Detail]) -> None:
    """Add a fragment to the item that it continues, else as an item of its own."""
    whole = None
    if fragment.get("index") is not None:
        latest = islice(reversed(details), OPEN_ITEMS_MAX)
        whole = next((one for one in latest if _continues(fragment, one)), None)
    if whole is None:
        details.append(dict(fragment))
        return
    for name, value in fragment.items():
        before = whole.get(name)
        if name in _GROWING and isinstance(before, str) and isinstance(value, str):
            whole[name] = before + value
        elif value is not None:
            whole[name] = value


def word(detail: Mapping[str, object], name: str) -> str:
    """Return the member of this name. Empty: it is missing, or no string."""
    value = detail.get(name)
    return value if isinstance(value, str) else ""


def _continues(fragment: Mapping[str, object], whole: Detail) -> bool:
    """Whether a fragment continues an item: at least index and type must be the same."""
    if any(fragment.get(name) != whole.get(name) for name in ("index", "type")):
        return False
    if whole.get("signature") and any(fragment.get(name) for name in _GROWING):
        return False  # A signature ends what it signs.
    ids = fragment.get("id"), whole.get("id")
    return None in ids or ids[0] == ids[1]
