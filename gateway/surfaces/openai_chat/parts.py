"""Parts of a message's content: text, images, audio, files, reasoning and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from msgspec import Raw, Struct

from gateway.errors import invalid
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import json_of
from gateway.surfaces.unknown_members import to_json
from services.common.known_members import OTHER_TAG, item, member
from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImageDetail,
    ImagePart,
    OtherPart,
    ReasoningPart,
    TextPart,
)

PARTS_MAX = 2_048
"""The most parts of a message that are decoded; the service accepts 256."""

_NONE = Raw()


class _ImageUrl(Struct, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class _InputAudio(Struct, forbid_unknown_fields=True):
    data: str
    format: str


class _FileSource(Struct, forbid_unknown_fields=True):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class PartBase(Struct, forbid_unknown_fields=True, tag_field="type"):
    """A part of a message. The tag is its `type`."""

    cache_control: Raw = _NONE


class _TextPart(PartBase, tag="text", kw_only=True):
    text: str


class _ImagePart(PartBase, tag="image_url", kw_only=True):
    image_url: str | _ImageUrl


class InputAudioPart(PartBase, tag="input_audio", kw_only=True):
    """Audio."""

    input_audio: _InputAudio

    def read(self, mark: bytes, extra_json: bytes) -> AudioPart:
        """Return the part with its cache mark and its unknown members."""
        return AudioPart(
            base64=self.input_audio.data,
            format=self.input_audio.format,
            cache_control_json=mark,
            extra_json=extra_json,
        )


class _FilePart(PartBase, tag="file", kw_only=True):
    file: _FileSource


class _RefusalPart(PartBase, tag="refusal", kw_only=True):
    refusal: str


class _ThinkingPart(PartBase, tag="thinking", kw_only=True):
    thinking: str


class UnknownPart(PartBase, tag=OTHER_TAG, kw_only=True):
    """Part of another type."""

    json: Raw


_KeptPart: TypeAlias = (
    _TextPart | _ImagePart | InputAudioPart | _FilePart | _ThinkingPart | UnknownPart
)
Parts: TypeAlias = list[_KeptPart | _RefusalPart]

DETAILS: Mapping[str | None, ImageDetail] = {
    None: "",
    "auto": "",
    "low": "low",
    "high": "high",
    "original": "original",
}
"""Levels of detail. Any other is kept as an unknown member."""


class PartReader:
    """Reader of parts, with the images of one request. `unknown` are unknown members."""

    def __init__(self, images: ImageReader) -> None:
        self._images = images

    def content(self, at: str, parts: Parts, unknown: Any) -> list[ContentPart]:
        """Return the parts but for refusals."""
        return [
            self._part(f"{at}.content[{index}]", part, item(unknown, index))
            for index, part in enumerate(parts)
            if not isinstance(part, _RefusalPart)
        ]

    def _part(self, at: str, part: _KeptPart, unknown: Any) -> ContentPart:
        mark, extra = json_of(part.cache_control), to_json(unknown)
        match part:
            case _TextPart():
                return TextPart(text=part.text, cache_control_json=mark, extra_json=extra)
            case _ThinkingPart():
                return ReasoningPart(text=part.thinking, cache_control_json=mark, extra_json=extra)
            case _ImagePart():
                return self._image(f"{at}.image_url", part, unknown)
            case InputAudioPart():
                return part.read(mark, extra)
            case _FilePart():
                return _file(f"{at}.file", part, unknown)
            case UnknownPart():
                return OtherPart(json=bytes(part.json), cache_control_json=mark)

    def _image(self, at: str, part: _ImagePart, unknown: Any) -> ImagePart:
        image, detail = part.image_url, None
        if isinstance(image, str):
            source = self._images.read(at, image)
        else:
            source = self._images.read(f"{at}.url", image.url)
            detail = image.detail
        if detail not in DETAILS:
            within = {**(member(unknown, "image_url") or {}), "detail": detail}
            unknown = {**(unknown or {}), "image_url": within}
        return ImagePart(
            uri=source.uri,
            base64=source.base64,
            mime_type=source.mime_type,
            detail=DETAILS.get(detail, ""),
            cache_control_json=json_of(part.cache_control),
            extra_json=to_json(unknown),
        )


def _file(at: str, part: _FilePart, unknown: Any) -> FilePart:
    source = part.file
    if source.file_id is None and source.file_data is None:
        raise invalid(at, f"Invalid {at}: expected `file_data` or `file_id`.")
    return FilePart(
        file_id=source.file_id or "",
        uri=source.file_data or "" if source.file_id is None else "",
        filename=source.filename or "",
        cache_control_json=json_of(part.cache_control),
        extra_json=to_json(unknown),
    )


def has_thinking(parts: str | Parts | None) -> bool:
    """Whether one of the parts is reasoning."""
    return isinstance(parts, list) and any(isinstance(part, _ThinkingPart) for part in parts)


class Refusals(NamedTuple):
    """Parts of a message that are refusals, together."""

    text: str = ""
    unknown: Mapping[str, object] = {}
    """Members that no field has."""
    mark: bytes = b""
    """JSON of the last one's `cache_control`."""


def read_refusals(parts: str | Parts | None, unknown: Any) -> Refusals:
    """Return the refusals among the parts of a message. `unknown` are unknown members."""
    if not isinstance(parts, list):
        return Refusals()
    texts: list[str] = []
    members: dict[str, object] = {}
    mark = b""
    for index, part in enumerate(parts):
        if isinstance(part, _RefusalPart):
            texts.append(part.refusal)
            members |= item(unknown, index) or {}
            mark = json_of(part.cache_control) or mark
    return Refusals("".join(texts), members, mark)
