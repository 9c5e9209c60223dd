"""Messages, tools and tool choice in OpenAI's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2 as content

from services.common.chat_names import IMAGE_DETAILS, ROLES, TOOL_CHOICE_MODES
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.translate import images

Json = dict[str, object]

ROLE_NAMES = {role: name for name, role in ROLES.items()}

DETAIL_NAMES = {detail: name for name, detail in IMAGE_DETAILS.items()}

MODE_NAMES = {mode: name for name, mode in TOOL_CHOICE_MODES.items()}

REASONING_RENAME = "reasoning"
"""Name in `quirks.renames` for the reasoning of earlier turns. Without an entry, it is not
sent: most providers ignore it, some refuse it, and few require it."""


def message(sent: content.Message, target: Target, notes: Notes, *, cache_marks: bool) -> Json:
    """Convert one message. `cache_marks`: the provider supports `cache_control`."""
    found: Json = {"role": _role(sent, target, notes)}
    parts = [
        _part(part, target, notes, cache_marks=cache_marks)
        for part in sent.content
        if part.WhichOneof("part") != "reasoning"
    ]
    found["content"] = _content(parts, sent)
    if sent.name:
        found["name"] = sent.name
    if sent.refusal:
        found["refusal"] = sent.refusal
    if sent.tool_calls:
        found["tool_calls"] = [_tool_call(call) for call in sent.tool_calls]
    if sent.tool_call_id:
        found["tool_call_id"] = sent.tool_call_id
    found |= _earlier_reasoning(sent, target)
    if sent.extra_json:
        found |= _replayed(sent.extra_json)
    return found


def tool(offered: pb.Tool) -> Json:
    """Convert one tool definition."""
    found: Json = {"name": offered.name}
    if offered.description:
        found["description"] = offered.description
    custom = offered.type == content.TOOL_TYPE_CUSTOM
    if offered.parameters_json:
        key = "format" if custom else "parameters"
        found[key] = valid_json(offered.parameters_json, "tools")
    if offered.HasField("strict") and not custom:
        found["strict"] = offered.strict
    return _of_type(offered.type, found)


def tool_choice(choice: pb.ToolChoice) -> object:
    """Convert the tool choice."""
    names = [_of_type(choice.type, {"name": name}) for name in choice.names]
    if choice.mode == pb.TOOL_CHOICE_MODE_NAMED:
        return names[0] if names else "required"
    mode = MODE_NAMES.get(choice.mode, "auto")
    if not names:
        return mode
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": names}}


def valid_json(text: bytes, param: str) -> msgspec.Raw:
    """JSON that is copied into a body unchanged. Raises INVALID_FIELD unless it is one value."""
    try:
        return msgspec.json.decode(text, type=msgspec.Raw).copy()
    except msgspec.DecodeError as error:
        raise Failure(
            ErrorReason.INVALID_FIELD, f"A part of `{param}` is not JSON.", param=param
        ) from error


def _role(sent: content.Message, target: Target, notes: Notes) -> str:
    if sent.role == content.ROLE_DEVELOPER and not target.capabilities.developer_role:
        notes.mapped("messages", "This model knows the role `developer` as `system`.")
        return "system"
    return ROLE_NAMES.get(sent.role, "user")


def _content(parts: list[Json], sent: content.Message) -> object:
    """Content as a string where possible, because many servers do not support arrays."""
    if not parts:
        return None if sent.tool_calls or sent.extra_json else ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return parts[0]["text"]
    return parts


def _part(part: content.ContentPart, target: Target, notes: Notes, *, cache_marks: bool) -> Json:
    kind = part.WhichOneof("part")
    if kind is None:
        raise Failure(ErrorReason.INVALID_FIELD, "A content part is empty.", param="messages")
    found = _PARTS[kind](part, target)
    if part.cache_control_json:
        if cache_marks:
            found["cache_control"] = valid_json(part.cache_control_json, "messages")
        else:
            notes.dropped("cache_control", "The provider decides itself what it caches.")
    return found


def _image(part: content.ContentPart, target: Target) -> Json:
    picture = images.read(part.image, target)
    source: Json
    if isinstance(picture, images.LinkedImage):
        source = {"url": picture.uri}
    else:
        source = {"url": picture.json(f"data:{picture.mime_type};base64,")}
    detail = DETAIL_NAMES.get(part.image.detail)
    return {"type": "image_url", "image_url": source | ({"detail": detail} if detail else {})}


def _audio(part: content.ContentPart, _: Target) -> Json:
    audio = {"data": part.audio.base64, "format": part.audio.format}
    return {"type": "input_audio", "input_audio": audio}


def _file(part: content.ContentPart, _: Target) -> Json:
    file = part.file
    source = {"file_id": file.file_id} if file.file_id else {"file_data": file.uri}
    return {"type": "file", "file": source | ({"filename": file.filename} if file.filename else {})}


_PARTS: Mapping[str, Callable[[content.ContentPart, Target], Json]] = {
    "text": lambda part, _: {"type": "text", "text": part.text},
    "image": _image,
    "audio": _audio,
    "file": _file,
}


def _tool_call(call: content.ToolCall) -> Json:
    custom = call.type == content.TOOL_TYPE_CUSTOM
    arguments: Json = {"input" if custom else "arguments": call.arguments}
    return {"id": call.id} | _of_type(call.type, {"name": call.name} | arguments)


def _of_type(kind: content.ToolType.ValueType, found: Json) -> Json:
    name = "custom" if kind == content.TOOL_TYPE_CUSTOM else "function"
    return {"type": name, name: found}


def _earlier_reasoning(sent: content.Message, target: Target) -> Json:
    name = target.channel.quirks.renames.get(REASONING_RENAME)
    if not name or sent.role != content.ROLE_ASSISTANT:
        return {}
    text = "".join(part.reasoning.text for part in sent.content)
    return {name: text} if text else {}


def _replayed(extra_json: bytes) -> Json:
    """Extra fields of an answer that a provider accepts in the next turn."""
    try:
        extra = msgspec.json.decode(extra_json, type=_Replayed)
    except msgspec.DecodeError as error:
        message = "A message's additional fields are not a JSON object."
        raise Failure(ErrorReason.INVALID_FIELD, message, param="messages") from error
    return {name: value for name, value in msgspec.structs.asdict(extra).items() if value}


class _Audio(msgspec.Struct):
    """Reference to audio that the model generated."""

    id: str = ""


class _FunctionCall(msgspec.Struct):
    """Function call in the form that preceded tools."""

    name: str = ""
    arguments: str = ""


class _Replayed(msgspec.Struct):
    """Extra fields of an earlier answer that are sent with the next turn."""

    audio: _Audio | None = None
    function_call: _FunctionCall | None = None
