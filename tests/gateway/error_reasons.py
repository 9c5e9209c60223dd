"""The comments of `error_reason.proto`: what the contract promises for each reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROTO = Path(__file__).parents[2] / "proto/pomogator/chat/v1/error_reason.proto"
_VALUE = re.compile(r"(?P<comment>(?:  //.*\n)+)  ERROR_REASON_(?P<name>\w+) = [1-9]")
_HTTP = re.compile(r"[A-Z_]+\. (?P<status>\d{3})(?: `(?P<type>\w+)`, `(?P<code>\w+)`)?[.,]")
_WORDS = r"((?:`[\w.]+`,? ?)+)"


class DocumentedReason(NamedTuple):
    """One value of the enum, as its comment describes it."""

    name: str
    """Without `ERROR_REASON_`."""
    status: int
    type: str | None
    code: str | None
    metadata: Sequence[str]
    """The keys of the metadata of `ErrorInfo`."""
    details: Sequence[str]
    """The messages beside `ErrorInfo`, such as `google.rpc.RetryInfo`."""


def documented_reasons() -> Sequence[DocumentedReason]:
    """Every reason but the unspecified one."""
    found = []
    for match in _VALUE.finditer(PROTO.read_text("utf-8")):
        comment = " ".join(line.strip(" /") for line in match["comment"].splitlines())
        http = _HTTP.match(comment)
        assert http is not None, f"{match['name']}: the comment does not begin with code and status"
        metadata, details = _listed("Metadata", comment), _listed("Details", comment)
        if "`scarce`" in comment:
            metadata = (*metadata, "scarce")
        found.append(
            DocumentedReason(
                match["name"], int(http["status"]), http["type"], http["code"], metadata, details
            )
        )
    return found


def _listed(title: str, comment: str) -> tuple[str, ...]:
    match = re.search(rf"{title}: {_WORDS}", comment)
    return tuple(re.findall(r"`([\w.]+)`", match[1])) if match else ()
