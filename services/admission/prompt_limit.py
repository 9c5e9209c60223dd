"""Bound of the tokens of a prompt's media, whose size is unknown before the call, for the hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.domain.conversation import FilePart, ImagePart, OtherPart
from services.domain.spec import ChatCompletionSpec
from services.metering.tokens import FILE_TOKENS, IMAGE_TOKENS
from services.providers.base import Target


def media_bound(spec: ChatCompletionSpec) -> Callable[[Sequence[Target]], int]:
    """Return the function that returns the most tokens of a prompt's media at any of some targets.

    Those that `estimate_prompt` has counted are left out. Media are images, and documents that are
    given by an address or an ID.
    """
    images = documents = 0
    for message in spec.messages:
        for part in message.content:
            images += type(part) is ImagePart
            documents += _is_by_address(part)

    def bound(targets: Sequence[Target]) -> int:
        rows = [target.capabilities for target in targets]
        image = max([row.image_tokens for row in rows])
        document = max([row.document_tokens for row in rows])
        return images * max(0, image - IMAGE_TOKENS) + documents * max(0, document - FILE_TOKENS)

    return bound if images or documents else _none


def _none(_: Sequence[Target]) -> int:
    return 0


def _is_by_address(part: object) -> bool:
    match part:
        case FilePart():
            return not part.uri.startswith("data:")
        case OtherPart():
            return b"://" in part.json or b"file_id" in part.json
        case _:
            return False
