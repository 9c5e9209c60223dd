"""Messages, tools and tool choice in OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from services.common.json_errors import NOT_JSON
from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolType,
)
from services.domain.spec import Tool, ToolChoice
from services.errors import invalid
from services.providers.base import Notes, Target
from services.providers.openai.cache_marks import CacheMarks
from services.providers.translate import images
from services.providers.translate.data_files import repaired, repaired_uri
from services.providers.translate.history import reasoning
from services.providers.translate.other_types import (
    BLOCKS_OF_SERVER_TOOLS,
    ITEM_OF_RESPONSES,
    NO_ITEMS,
    other_object,
    other_type,
)
from services.providers.translate.raw_json import valid_json

Json = dict[str, object]

SentPart: TypeAlias = TextPart | ImagePart | AudioPart | FilePart | OtherPart
"""Parts that have a form in OpenAI's content."""


def message(sent: Message, target: Target, notes: Notes, marks: CacheMarks) -> Json:
    """Convert one message."""
    found: Json = {"role": _role(sent, target, notes)}
    parts = [part for each in sent.content for part in _part(each, target, notes, marks)]
    calls = [_tool_call(call, marks) for call in sent.tool_calls]
    if sent.cache_control_json:
        marks.add_to_message(parts, calls, sent.cache_control_json)
    if sent.is_error:
        _tell_failure(parts, sent, notes)
    found["content"] = _content(parts, sent)
    if sent.name and (sent.role == "tool" or target.capabilities.participant_names):
        found["name"] = sent.name
    elif sent.name:
        notes.dropped("messages", "The provider has no names of participants.")
    if sent.refusal:
        found["refusal"] = sent.refusal
    if calls:
        found["tool_calls"] = calls
    if sent.tool_call_id:
        found["tool_call_id"] = sent.tool_call_id
    if sent.extra_json:
        found |= _replayed(sent.extra_json)
    return found


def tool(offered: Tool, marks: CacheMarks) -> Json:
    """Convert one tool definition."""
    if offered.other_json:
        other = other_object(offered.other_json, "tools")
        if offered.cache_control_json:
            marks.add(other, offered.cache_control_json)
        return other
    found: Json = {"name": offered.name}
    if offered.description:
        found["description"] = offered.description
    custom = offered.type == "custom"
    if offered.parameters_json:
        key = "format" if custom else "parameters"
        found[key] = valid_json(offered.parameters_json, "parameters")
    if offered.strict is not None and not custom:
        found["strict"] = offered.strict
    made = _of_type(offered.type, found)
    if offered.cache_control_json:
        marks.add(made, offered.cache_control_json)
    return made


def tool_choice(choice: ToolChoice) -> object:
    """Convert the tool choice."""
    names = [_of_type(choice.type, {"name": name}) for name in choice.names]
    if choice.mode == "named":
        return names[0] if names else "required"
    mode = choice.mode or "auto"
    if not names:
        return mode
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": names}}


class EarlierReasoning:
    """Reasoning of earlier turns as plain text, for one request.

    `name`: the dialect's field. `filled`: missing reasoning is sent as an empty text.
    """

    def __init__(self, name: str, target: Target, notes: Notes, *, filled: bool) -> None:
        self._name = target.channel.quirks.renames.get(reasoning.RENAME, name)
        self._sent = reasoning.takes_text(target)
        self._filled = filled
        self._notes = notes

    def of(self, sent: Message) -> Json:
        """Return the member that a message has for its reasoning, if any."""
        if sent.role != "assistant" or not self._sent:
            return {}
        text = reasoning.plain_text(sent)
        if text is None and self._filled:
            text = ""
            if sent.tool_calls:
                detail = "Missing reasoning of tool calls is sent as empty."
                self._notes.mapped("reasoning_content", detail)
        return {} if text is None else {self._name: text}


def plain_content(parts: list[Json]) -> object:
    """Content of these parts: a string if they are a text and nothing else."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"} and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _role(sent: Message, target: Target, notes: Notes) -> str:
    if sent.role == "developer" and not target.capabilities.developer_role:
        notes.mapped("messages", "This model knows the role `developer` as `system`.")
        return "system"
    return sent.role or "user"


def _tell_failure(parts: list[Json], sent: Message, notes: Notes) -> None:
    """Begin the result of a tool that failed with `Error: `, unless its text says so."""
    if sent.role != "tool":
        notes.dropped("messages", "Only the result of a tool has `is_error`.")
        return
    first = parts[0] if parts else {}
    text = str(first.get("text", ""))
    if text.lstrip().lower().startswith("error"):
        return
    notes.mapped("messages", "The provider has no `is_error`: the result begins with `Error: `.")
    if "text" in first:
        parts[0] = {**first, "text": f"Error: {text}"}
    else:
        parts.insert(0, {"type": "text", "text": "Error: "})


def _content(parts: list[Json], sent: Message) -> object:
    """Content as a string where possible, because many servers do not support arrays."""
    if not parts:
        return None if sent.tool_calls or sent.extra_json else ""
    return plain_content(parts)


def _part(part: ContentPart, target: Target, notes: Notes, marks: CacheMarks) -> Iterator[Json]:
    """Yield the part in OpenAI's form: none for reasoning, whose mark then has no place."""
    if isinstance(part, ReasoningPart):
        if part.cache_control_json:
            marks.add_nowhere()
        return
    if isinstance(part, OtherPart):
        kind = other_type(part.json, "messages")
        if kind == ITEM_OF_RESPONSES:
            notes.dropped("input", NO_ITEMS)
            return
        # The blocks are Anthropic's alone.
        is_theirs = BLOCKS_OF_SERVER_TOOLS.fullmatch(kind) is not None
        if is_theirs and target.channel.pass_through is not True:
            notes.dropped("messages", "Blocks of tools that Anthropic has run are not passed on.")
            return
    found = _bare_part(part, target, notes)
    if part.cache_control_json:
        marks.add(found, part.cache_control_json)
    yield found


def _bare_part(part: SentPart, target: Target, notes: Notes) -> Json:
    """Convert a part without its cache mark."""
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            return {"type": "image_url", "image_url": _image(part, target, notes)}
        case AudioPart():
            return {
                "type": "input_audio",
                "input_audio": {"data": repaired(part.base64), "format": part.format},
            }
        case FilePart():
            return {"type": "file", "file": _file(part)}
        case OtherPart():
            return other_object(part.json, "messages")


def _image(part: ImagePart, target: Target, notes: Notes) -> Json:
    image = images.read(part, target, notes)
    found: Json
    if isinstance(image, images.LinkedImage):
        found = {"url": image.uri}
    else:
        found = {"url": image.json(f"data:{image.mime_type};base64,")}
    if part.detail:
        found["detail"] = part.detail
    return found


def _file(part: FilePart) -> Json:
    found: Json = (
        {"file_id": part.file_id} if part.file_id else {"file_data": repaired_uri(part.uri)}
    )
    if part.filename:
        found["filename"] = part.filename
    return found


def _tool_call(call: ToolCall, marks: CacheMarks) -> Json:
    # Servers read the arguments of earlier calls as JSON.
    written = call.arguments if call.arguments.strip() else "{}"
    arguments: Json = {"input": call.arguments} if call.type == "custom" else {"arguments": written}
    made = {"id": call.id} | _of_type(call.type, {"name": call.name} | arguments)
    if call.cache_control_json:
        marks.add_to_call(made, call.cache_control_json)
    return made


def _of_type(kind: ToolType, found: Json) -> Json:
    name = "custom" if kind == "custom" else "function"
    return {"type": name, name: found}


def _replayed(extra_json: bytes) -> Json:
    """Extra fields of an answer that a provider accepts in the next turn."""
    try:
        extra = msgspec.json.decode(extra_json, type=_Replayed)
    except NOT_JSON as error:
        raise invalid("messages", "A message's additional fields are not a JSON object.") from error
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
