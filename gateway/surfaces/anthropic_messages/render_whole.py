"""Message renderer: a whole answer as Anthropic's `message` object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Raw

from gateway.surfaces.anthropic_messages.answer_members import (
    Choice,
    Json,
    MessageMembers,
    ending,
    message_id,
    whole_usage,
)
from gateway.surfaces.other_members import with_others
from gateway.surfaces.reasoning_places import NATIVE, anthropic_places
from gateway.surfaces.reasoning_seals import read_details, sealed_details, sealed_state
from services.common.json_errors import NOT_JSON
from services.common.sealed_blocks import Block, Redacted, SealedCall, Text, Thought
from services.domain import completion as domain
from services.domain.conversation import Message, ReasoningPart, TextPart, ToolCall

_encode = msgspec.json.Encoder().encode
_NOTHING = domain.Choice(finish_reason="stop")


def render_message(completion: domain.Completion, stops: Sequence[str]) -> bytes:
    """Return the body of a whole answer to a request with these stop sequences."""
    choice = completion.choices[0] if completion.choices else _NOTHING
    message = choice.message
    end = ending(
        Choice(choice.finish_reason, choice.native_finish_reason, choice.extra_json),
        stops,
        called=bool(message.tool_calls),
        refused=bool(message.refusal),
    )
    refusal = "" if end.explains_refusal else message.refusal
    text = "".join([part.text for part in message.content if type(part) is TextPart]) + refusal
    members = MessageMembers.of(message.extra_json, text)
    rendered: Json = {
        "id": message_id(completion.completion_id),
        "type": "message",
        "role": "assistant",
        "model": completion.model,
        "content": [*_content(message, text, members)],
        **end.members,
        "usage": whole_usage(completion.usage, completion.service_tier),
    }
    return _encode({**end.others, **members.others, **with_others(rendered, completion.extra_json)})


def _content(message: Message, text: str, members: MessageMembers) -> Iterator[Json]:
    if places := anthropic_places(message):
        yield from members.blocks
        yield from _in_order(places, message, text, members.citations)
        return
    yield from _reasoning(message)
    yield from members.blocks
    if text or members.citations:
        yield _text(text, members.citations)
    yield from map(tool_use, message.tool_calls)


def _in_order(
    places: Iterable[Block], message: Message, text: str, citations: Sequence[Json]
) -> Iterator[Json]:
    """Yield the blocks in the order in which Anthropic's model generated them."""
    calls = {call.id: call for call in message.tool_calls}
    begin = 0
    for place in places:
        match place:
            case Thought(thinking, signature):
                yield {"type": "thinking", "thinking": thinking, "signature": signature}
            case Redacted(data):
                yield {"type": "redacted_thinking", "data": data}
            case Text(length):
                piece, begin = text[begin : begin + length], begin + length
                is_last = begin >= len(text)
                yield _text(piece, citations if is_last else ())
            case SealedCall(call_id) if call_id in calls:
                yield tool_use(calls.pop(call_id))
    if begin < len(text):
        yield _text(text[begin:], citations)
    yield from map(tool_use, calls.values())


def _text(text: str, citations: Sequence[Json]) -> Json:
    return {"type": "text", "text": text, "citations": citations or None}


def _reasoning(message: Message) -> Iterator[Json]:
    is_sealed = False
    details_json = message.reasoning_details_json
    details = read_details(details_json) if details_json else []
    if not any(detail.words for detail in details):
        yield from _plain(part.text for part in message.content if type(part) is ReasoningPart)
    for detail in details:
        seal = (detail.signature or "") if detail.is_of(NATIVE) else ""
        if detail.words or seal:
            yield {"type": "thinking", "thinking": detail.words, "signature": seal}
        if detail.data and detail.is_of(NATIVE):
            yield {"type": "redacted_thinking", "data": detail.data}
        is_sealed = is_sealed or detail.is_sealed
    if any(detail.is_sealed and not detail.is_of(NATIVE) for detail in details):
        yield {"type": "redacted_thinking", "data": sealed_details([details_json])}
    elif message.reasoning_state and not is_sealed:
        yield {"type": "redacted_thinking", "data": sealed_state(message.reasoning_state)}


def _plain(texts: Iterable[str]) -> Iterator[Json]:
    if text := "".join(texts):
        yield {"type": "thinking", "thinking": text, "signature": ""}


def tool_use(call: ToolCall) -> Json:
    """Return the block of a call. Arguments that are no JSON object are wrapped in one."""
    arguments: object = {}
    if call.arguments.strip():
        try:
            msgspec.json.decode(call.arguments, type=dict)
            arguments = Raw(call.arguments.encode())
        except NOT_JSON:
            arguments = {"arguments": call.arguments}
    block: Json = {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
    return with_others(block, call.extra_json)
