"""Content parts as the API's blocks: text, images, documents."""

from __future__ import annotations

from collections.abc import Iterable

from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    OtherPart,
    TextPart,
)
from services.providers.anthropic.cache_marks import mark_end
from services.providers.anthropic.own_members import OF_DOCUMENTS, citations_of, own_members
from services.providers.base import Notes, Target
from services.providers.translate import images
from services.providers.translate.data_files import data_file
from services.providers.translate.features import require
from services.providers.translate.other_types import (
    BLOCKS_OF_SERVER_TOOLS,
    ITEM_OF_RESPONSES,
    NO_ITEMS,
    other_object,
    other_type,
)

Json = dict[str, object]

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

OWN_TYPES = frozenset({"document", "search_result"})
"""Types of the API's blocks that callers may send as they are, as those of tools that it runs."""


def contents(parts: Iterable[ContentPart], target: Target, notes: Notes) -> list[Json]:
    """Convert parts to blocks. Plain-text reasoning is left out: the API has no use for it."""
    blocks: list[Json] = []
    for part in parts:
        blocks += _blocks(part, target, notes)
        mark_end(blocks, part.cache_control_json, notes)
    return blocks


def text_blocks(text: str) -> list[Json]:
    """Text block, or none for white space alone, which the API refuses."""
    return [{"type": "text", "text": text}] if text.strip() else []


def _blocks(part: ContentPart, target: Target, notes: Notes) -> list[Json]:
    match part:
        case TextPart():
            cited = citations_of(part.extra_json)
            return [block | cited for block in text_blocks(part.text)]
        case ImagePart():
            return _image(part, target, notes)
        case FilePart():
            return _file(part)
        case AudioPart():
            require(False, "messages", "audio")
        case OtherPart():
            kind = other_type(part.json, "messages")
            if kind == ITEM_OF_RESPONSES:
                notes.dropped("input", NO_ITEMS)
                return []
            own = kind in OWN_TYPES or BLOCKS_OF_SERVER_TOOLS.fullmatch(kind) is not None
            require(own, "messages", "parts of this type")
            return [other_object(part.json, "messages")]
    return []


def _image(image: ImagePart, target: Target, notes: Notes) -> list[Json]:
    if image.detail:
        notes.dropped("detail", "The provider decides itself how closely it looks at an image.")
    match images.read(image, target, notes, accepts=IMAGE_TYPES):
        case images.InlineImage(mime_type=mime_type) as inline:
            return [{"type": "image", "source": _inline(mime_type, inline.json())}]
        case images.LinkedImage(uri=uri):
            return [{"type": "image", "source": {"type": "url", "url": uri}}]


def _file(file: FilePart) -> list[Json]:
    """Document block: PDF and text by value, any type by reference."""
    title: Json = {"title": file.filename} if file.filename else {}
    own = own_members(file.extra_json, OF_DOCUMENTS)
    return [{"type": "document", "source": _source(file.uri), **title, **own}]


def _source(uri: str) -> Json:
    document = data_file(uri)
    if document is None:
        require(uri.startswith("https://"), "messages", "this kind of file")
        return {"type": "url", "url": uri}
    if document.mime_type == "application/pdf":
        return _inline(document.mime_type, document.base64.decode("ascii"))
    try:
        return {"type": "text", "media_type": "text/plain", "data": document.text()}
    except ValueError:
        require(False, "messages", "files that are neither PDF nor text in UTF-8")
        raise


def _inline(mime_type: str, data: object) -> Json:
    return {"type": "base64", "media_type": mime_type, "data": data}
