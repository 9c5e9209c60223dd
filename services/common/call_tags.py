"""Labels of a call in the header `x-pomogator-tags`: `team=search,stage=test`."""

from __future__ import annotations

import re
from collections.abc import Mapping

TAGS_MAX = 8

_TAG = re.compile(r"\s*([A-Za-z0-9_.-]{1,64})=([^,=]{1,64}?)\s*")

FORM = (
    f"It must be at most {TAGS_MAX} pairs `name=value` with commas between them: names of letters,"
    " digits or `_.-`, and printable values, each of at most 64 characters."
)


def read_tags(text: str) -> Mapping[str, str]:
    """Return the labels. Raise ValueError if the text has another form, or a name twice."""
    found: dict[str, str] = {}
    for part in text.split(","):
        match = _TAG.fullmatch(part)
        if match is None or not match[2].isprintable() or match[1] in found:
            raise ValueError(FORM)
        found[match[1]] = match[2]
    if len(found) > TAGS_MAX:
        raise ValueError(FORM)
    return found
