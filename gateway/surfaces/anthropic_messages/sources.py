"""Sources of images and documents: by value, by URL, or by a provider's ID."""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import json_of
from gateway.surfaces.unknown_members import to_json
from services.common.known_members import OTHER_TAG
from services.domain.conversation import ContentPart, FilePart, ImagePart, OtherPart

_NONE = Raw()
_UNCITED = {"enabled": False}
"""Citations as they are where a document does not name them."""


class _Source(Struct, forbid_unknown_fields=True, tag_field="type"):
    """A source. The tag is its `type`."""


class _Base64Source(_Source, tag="base64", kw_only=True):
    media_type: str
    data: str


class _UrlSource(_Source, tag="url", kw_only=True):
    url: str


class _TextSource(_Source, tag="text", kw_only=True):
    data: str
    media_type: str = "text/plain"


class _OtherSource(_Source, tag=OTHER_TAG, kw_only=True):
    json: Raw


ImageOrigin: TypeAlias = _Base64Source | _UrlSource | _OtherSource
DocumentOrigin: TypeAlias = _Base64Source | _UrlSource | _TextSource | _OtherSource


class ImageBlock(Struct, forbid_unknown_fields=True, tag_field="type", tag="image", kw_only=True):
    """An image."""

    source: ImageOrigin
    cache_control: Raw = _NONE


class DocumentBlock(
    Struct, forbid_unknown_fields=True, tag_field="type", tag="document", kw_only=True
):
    """A document: PDF, text, or blocks of content."""

    source: DocumentOrigin
    title: str | None = None
    context: Raw = _NONE
    citations: Raw = _NONE
    cache_control: Raw = _NONE


def image_part(at: str, block: ImageBlock, unknown: Any, images: ImageReader) -> ContentPart:
    """Return the part of an image. One with a provider's ID stays in Anthropic's form.

    Raises ApiError: the image is malformed, or exceeds a limit.
    """
    mark, source = json_of(block.cache_control), block.source
    if isinstance(source, _OtherSource):
        return _as_it_is({"type": "image", "source": source.json}, unknown, mark)
    if isinstance(source, _UrlSource):
        found = images.read(f"{at}.source.url", source.url)
    else:
        found = images.read_base64(f"{at}.source.data", source.data)
    return ImagePart(
        uri=found.uri,
        base64=found.base64,
        mime_type=found.mime_type,
        cache_control_json=mark,
        extra_json=to_json(unknown),
    )


def document_part(block: DocumentBlock, unknown: Any) -> ContentPart:
    """Return the part of a document. One with another source stays in Anthropic's form."""
    mark, source = json_of(block.cache_control), block.source
    if isinstance(source, _OtherSource):
        return _as_it_is({"type": "document", "source": source.json}, _more(block, unknown), mark)
    others = _more(block, unknown)
    others.pop("title", None)
    return FilePart(
        uri=_uri(source),
        filename=block.title or "",
        cache_control_json=mark,
        extra_json=to_json(others),
    )


def _uri(source: _Base64Source | _UrlSource | _TextSource) -> str:
    match source:
        case _UrlSource():
            return source.url
        case _TextSource():
            return f"data:text/plain;charset=utf-8,{quote(source.data)}"
        case _Base64Source():
            return f"data:{source.media_type};base64,{source.data}"


def _more(block: DocumentBlock, unknown: Any) -> dict[str, object]:
    """Return the members of a document beside its source and mark."""
    members: dict[str, object] = {**(unknown or {})}
    if block.title is not None:
        members["title"] = block.title
    if context := json_of(block.context):
        members["context"] = Raw(context)
    citations = json_of(block.citations)
    if citations and msgspec.json.decode(citations) != _UNCITED:
        members["citations"] = Raw(citations)
    return members


def _as_it_is(members: dict[str, object], unknown: Any, mark: bytes) -> OtherPart:
    return OtherPart(
        json=msgspec.json.encode({**members, **(unknown or {})}), cache_control_json=mark
    )
