"""Bound of the tokens of a prompt's media, whose size is unknown before the call, for the hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from services.domain.conversation import FilePart, ImagePart, OtherPart, TextPart
from services.domain.spec import ChatCompletionSpec
from services.metering.json_budget import JsonBudget
from services.metering.prompt_contents import FILE_TOKENS, IMAGE_TOKENS
from services.providers.base import Target

_MARKS_OF_MEDIA = (b"://", b"file_id", b'"image')
"""Words in the JSON of a document that is given by address or ID, or that has images."""


MediaBound = Callable[[Sequence[Target]], int]
"""Returns the most tokens of a prompt's media at any of some targets."""


def media_bound(spec: ChatCompletionSpec) -> MediaBound:
    """Return the bound of a prompt's media.

    Those that `estimate_prompt` has counted are left out. Media are images, documents that are
    given by an address or an ID, and parts of other types, such as videos.
    """
    if not spec.messages:
        return _none
    images = documents = 0
    budget = JsonBudget()
    for message in spec.messages:
        for part in message.content:
            if type(part) is not TextPart:
                images += type(part) is ImagePart
                documents += _has_unknown_size(part, budget)

    def bound(targets: Sequence[Target]) -> int:
        rows = [target.capabilities for target in targets]
        image = max([row.image_tokens for row in rows])
        document = max([row.document_tokens for row in rows])
        return images * max(0, image - IMAGE_TOKENS) + documents * max(0, document - FILE_TOKENS)

    return bound if images or documents else _none


def _none(_: Sequence[Target]) -> int:
    return 0


def _has_unknown_size(part: object, budget: JsonBudget) -> bool:
    match part:
        case FilePart():
            return not part.uri.startswith("data:")
        case OtherPart():
            return not budget.take(part.json) or _has_media(part.json)
        case _:
            return False


def _has_media(json: bytes) -> bool:
    """Whether a part of another type is anything but texts and a document by value."""
    try:
        value = msgspec.json.decode(json)
        kind = value.get("type") if isinstance(value, dict) else None
        plain = msgspec.json.encode(value)  # Without escapes, behind which an address could hide.
    except (ValueError, OverflowError, RecursionError):
        return True
    if kind == "search_result":
        return False  # Its address is only shown.
    return kind != "document" or any(mark in plain for mark in _MARKS_OF_MEDIA)
