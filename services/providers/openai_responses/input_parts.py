"""Content of a user's, a tool's or an instruction's message, as parts of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    OtherPart,
    ReasoningPart,
    TextPart,
)
from services.providers.base import Notes, Target
from services.providers.openai_responses.wire import Json
from services.providers.translate import images
from services.providers.translate.data_files import repaired, repaired_uri
from services.providers.translate.other_types import ITEM_OF_RESPONSES, other_object

KnownPart: TypeAlias = TextPart | ImagePart | AudioPart | FilePart | ReasoningPart

MARK = "cache_control"
NO_MARKS = "The provider decides itself what it caches."

_OWN = "input_"
"""Beginning of the types of parts that only this API has."""

_DATA = "data:"
_DEFAULT_NAME = "document"
"""Name of a file by value that has none: the API demands one."""


def input_parts(
    content: Sequence[ContentPart], target: Target, notes: Notes, path: str
) -> list[Json]:
    """Return the parts in the API's form. Those without one get a note.

    `path` is that of the message, such as `messages[0]`.
    """
    parts: list[Json] = []
    for number, part in enumerate(content):
        if part.cache_control_json:
            notes.dropped(MARK, NO_MARKS)
        if isinstance(part, OtherPart):
            found = _other(part, target, notes, f"{path}.content[{number}]")
        else:
            found = _part(part, target, notes)
        if found is not None:
            parts.append(found)
    return parts


def _part(part: KnownPart, target: Target, notes: Notes) -> Json | None:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            return {"type": "input_image", **_image(part, target, notes)}
        case AudioPart():
            audio = {"data": repaired(part.base64), "format": part.format}
            return {"type": "input_audio", "input_audio": audio}
        case FilePart():
            return {"type": "input_file", **_file(part)}
        case ReasoningPart():
            return None


def _image(part: ImagePart, target: Target, notes: Notes) -> Json:
    image = images.read(part, target, notes)
    made: Json
    if isinstance(image, images.LinkedImage):
        made = {"image_url": image.uri}
    else:
        made = {"image_url": image.json(f"data:{image.mime_type};base64,")}
    return made | ({"detail": part.detail} if part.detail else {})


def _file(part: FilePart) -> Json:
    named: Json = {"filename": part.filename} if part.filename else {}
    if part.file_id:
        return {"file_id": part.file_id}
    if part.uri[: len(_DATA)].lower() != _DATA:
        return {"file_url": part.uri} | named
    kind = part.uri[len(_DATA) :].partition(",")[0].partition(";")[0].rpartition("/")[2]
    made_name = f"{_DEFAULT_NAME}.{kind}" if kind.isalnum() else _DEFAULT_NAME
    return {"filename": made_name, **named, "file_data": repaired_uri(part.uri)}


def _other(part: OtherPart, target: Target, notes: Notes, path: str) -> Json | None:
    """Return a part of another type, if the API has it or the channel passes on everything."""
    found = other_object(part.json, "messages")
    kind = str(found["type"])
    passes = target.channel.pass_through is True and kind != ITEM_OF_RESPONSES
    if kind.startswith(_OWN) or passes:
        return found
    notes.dropped(path, "Parts of this type are not passed on to the provider.")
    return None
