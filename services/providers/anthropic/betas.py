"""Betas: features of the API that a request asks for in the header `anthropic-beta`.

https://platform.claude.com/docs/en/api/beta-headers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from services.common.json_places import members
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes
from services.providers.translate.unknown_members import members_of

_SENT = re.compile(
    r"(advanced-tool-use|claude-code|computer-use|context-management|effort|extended-cache-ttl"
    r"|fine-grained-tool-streaming|interleaved-thinking|mid-conversation-system"
    r"|model-context-window-exceeded|output-128k|prompt-caching|prompt-caching-scope"
    r"|structured-outputs|thinking-token-count|token-counting|token-efficient-tools)-20\d\d-?\d\d-?\d\d"
)
"""Those that change neither the price of a token nor what is stored. Not here: `context-1m` (dearer
tokens), `files-api`, `skills` and `mcp-client` (storage, and addresses), `fast-mode`."""

CONTEXT_MANAGEMENT: Final = "context_management"
"""Field of the request that comes with a beta."""

_EDITS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)


def is_harmless(beta: str) -> bool:
    """Return whether a beta changes neither the price of a token nor what is stored."""
    return _SENT.fullmatch(beta) is not None


def beta_headers(spec: ChatCompletionSpec, notes: Notes) -> dict[str, str]:
    """Return the header with the betas that are sent. Each other one has a note."""
    if not spec.betas:
        return {}
    sent = [beta for beta in spec.betas if is_harmless(beta)]
    for beta in spec.betas:
        if beta not in sent:
            notes.dropped("betas", "A beta of this name is not passed on to the provider.")
    return {"anthropic-beta": ",".join(sent)} if sent else {}


def context_management(spec: ChatCompletionSpec) -> Mapping[str, msgspec.Raw]:
    """Return the field `context_management`, if it is sent.

    It is sent where it only leaves out earlier content. A compaction is an answer that costs.
    """
    has_beta = any(beta.startswith("context-management-") for beta in spec.betas)
    raw = (members_of(spec.extra_json) or {}).get(CONTEXT_MANAGEMENT) if has_beta else None
    return {} if raw is None or not only_clears(raw) else {CONTEXT_MANAGEMENT: raw}


def only_clears(context_management: msgspec.Raw) -> bool:
    """Return whether a `context_management` only leaves out earlier content."""
    try:
        found = members(
            context_management
        )  # Another reader could take the first of two equal names.
        edits = _EDITS.decode(found["edits"]) if "edits" in found else []
        types = [_TEXT.decode(members(edit)["type"]) for edit in edits]
    except (ValueError, LookupError, RecursionError):
        return False
    return found.keys() <= {"edits"} and all(each.startswith("clear_") for each in types)
