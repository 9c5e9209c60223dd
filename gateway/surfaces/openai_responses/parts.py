"""Content parts of a request's items: text, images, audio, files and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import Raw

from gateway.errors import invalid
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import json_of
from gateway.surfaces.openai_chat.parts import DETAILS, InputAudioPart, PartBase, UnknownPart
from gateway.surfaces.unknown_members import to_json
from services.common.known_members import item
from services.domain.conversation import (
    ContentPart,
    FilePart,
    ImagePart,
    OtherPart,
    TextPart,
)

PARTS_MAX = 2_048
"""The most parts of an item that are decoded; the service accepts 256."""

_NONE = Raw()


class _InputText(PartBase, tag="input_text", kw_only=True):
    text: str


class _PlainText(PartBase, tag="text", kw_only=True):
    """Text as chat completions have it, which some clients send here."""

    text: str


class _OutputText(PartBase, tag="output_text", kw_only=True):
    text: str
    annotations: Raw = _NONE
    logprobs: Raw = _NONE


class _Refusal(PartBase, tag="refusal", kw_only=True):
    refusal: str


class _InputImage(PartBase, tag="input_image", kw_only=True):
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class _InputFile(PartBase, tag="input_file", kw_only=True):
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None


Part: TypeAlias = (
    _InputText
    | _PlainText
    | _OutputText
    | _Refusal
    | _InputImage
    | _InputFile
    | InputAudioPart
    | UnknownPart
)
"""Parts of a message, and of a tool's output."""


class PartReader:
    """Reader of parts, with the images of one request. `unknown` are unknown members."""

    def __init__(self, images: ImageReader) -> None:
        self._images = images

    def contents(self, at: str, parts: str | Sequence[Part], unknown: Any) -> list[ContentPart]:
        """Return the parts of a text or of parts: at least one, which may be an empty text."""
        if isinstance(parts, str) or not parts:
            return [TextPart(text=parts if isinstance(parts, str) else "")]
        return [
            self.part(f"{at}[{index}]", part, item(unknown, index))
            for index, part in enumerate(parts)
        ]

    def part(self, at: str, part: Part, unknown: Any) -> ContentPart:
        """Return the part. A refusal is a text here.

        Raises ApiError: it has no source, or an image that is malformed or exceeds a limit.
        """
        mark, extra = json_of(part.cache_control), to_json(unknown)
        match part:
            case _InputText() | _PlainText() | _OutputText() | _Refusal():
                return _text(part, unknown)
            case _InputImage():
                return self._image(at, part, unknown)
            case _InputFile():
                return _file(at, part, unknown)
            case InputAudioPart():
                return part.read(mark, extra)
            case UnknownPart():
                return OtherPart(json=bytes(part.json), cache_control_json=mark)

    def _image(self, at: str, part: _InputImage, unknown: Any) -> ContentPart:
        members: dict[str, object] = {**(unknown or {})}
        if part.image_url is None:
            if part.file_id is None:
                raise invalid(at, f"Invalid {at}: expected `image_url` or `file_id`.")
            uploaded = {"type": "input_image", "file_id": part.file_id}
            detail = {} if part.detail is None else {"detail": part.detail}
            return OtherPart(
                json=to_json({**members, **uploaded, **detail}),
                cache_control_json=json_of(part.cache_control),
            )
        source = self._images.read(f"{at}.image_url", part.image_url)
        if part.file_id is not None:
            members["file_id"] = part.file_id
        if part.detail not in DETAILS:
            members["image_url"] = {"detail": part.detail}
        return ImagePart(
            uri=source.uri,
            base64=source.base64,
            mime_type=source.mime_type,
            detail=DETAILS.get(part.detail, ""),
            cache_control_json=json_of(part.cache_control),
            extra_json=to_json(members),
        )


def refusal_of(part: Part) -> str | None:
    """Return the text of a refusal. None: the part is another one."""
    return part.refusal if isinstance(part, _Refusal) else None


def _text(part: _InputText | _PlainText | _OutputText | _Refusal, unknown: Any) -> TextPart:
    if isinstance(part, _OutputText):
        unknown = _with_cited(part, unknown)
    return TextPart(
        text=part.refusal if isinstance(part, _Refusal) else part.text,
        cache_control_json=json_of(part.cache_control),
        extra_json=to_json(unknown),
    )


def _with_cited(part: _OutputText, unknown: Any) -> Any:
    """Return the unknown members with what an answer's text has beside it, unless that is empty."""
    for name, raw in (("annotations", part.annotations), ("logprobs", part.logprobs)):
        if (value := json_of(raw)) and value[1:-1].strip():
            unknown = {**(unknown or {}), name: Raw(value)}
    return unknown


def _file(at: str, part: _InputFile, unknown: Any) -> FilePart:
    sources = [part.file_id, part.file_data, part.file_url]
    given = [source for source in sources if source is not None]
    if not given:
        raise invalid(at, f"Invalid {at}: expected `file_data`, `file_url` or `file_id`.")
    if len(given) > 1:
        raise invalid(at, f"Invalid {at}: give one of `file_data`, `file_url` and `file_id`.")
    return FilePart(
        file_id=part.file_id or "",
        uri=part.file_data or part.file_url or "",
        filename=part.filename or "",
        cache_control_json=json_of(part.cache_control),
        extra_json=to_json(unknown),
    )
