"""Labels of a call in the header `x-pomogator-tags`: `team=search,stage=test`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.common.call_names import TAGS_HEADER

TAGS_MAX = 8

# Metadata of gRPC are printable ASCII, too.
_TAG = re.compile(r" *([A-Za-z0-9_.-]{1,64})=([ -+\--<>-~]{1,64}?) *")

FORM = (
    f"{TAGS_HEADER} must be at most {TAGS_MAX} pairs `name=value` with commas between them: names"
    " of letters, digits or `_.-`, and values of printable ASCII, each of at most 64 characters."
)


def read_tags(text: str) -> Mapping[str, str]:
    """Return the labels. Raise ValueError if the text has another form, or a name twice."""
    found: dict[str, str] = {}
    for part in text.split(","):
        match = _TAG.fullmatch(part)
        if match is None or match[1] in found:
            raise ValueError(FORM)
        found[match[1]] = match[2]
    if len(found) > TAGS_MAX:
        raise ValueError(FORM)
    return found
