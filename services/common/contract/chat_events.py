"""Events of a stream: the chunks of `StreamChatCompletionResponse`, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.common.contract.chat import CREATE_TIME, CREATE_TIME_NAME, NOTE, USAGE
from services.common.contract.message_table import MessageTable, to_json_text
from services.domain.events import (
    AnswerMembers,
    Batch,
    ChoiceFinished,
    Delta,
    Event,
    ExtraDelta,
    Finished,
    RawContent,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)

_Fill = Callable[[Any, pb.ChatCompletionChunk], None]

_EVENTS: Mapping[str, MessageTable[Any, Any]] = {
    "started": MessageTable(
        Started,
        pb.CompletionStarted,
        {
            "create_time": CREATE_TIME,
            "notes": NOTE.translation,
            "prompt_usage": USAGE.translation,
        },
        CREATE_TIME_NAME,
    ),
    "answer_members": MessageTable(AnswerMembers, pb.AnswerMembers),
    "raw": MessageTable(RawContent, pb.RawContent),
    "choice_finished": MessageTable(ChoiceFinished, pb.ChoiceFinished),
    "finished": MessageTable(Finished, pb.CompletionFinished, {"usage": USAGE.translation}),
}
"""Events but for deltas, by the field of `ChatCompletionChunk.event`."""

_TOOL_CALL = MessageTable(ToolCallDelta, pb.ToolCallDelta, names={"index": "call_index"})

_PLAIN_DELTAS: Mapping[str, tuple[type[Delta], str]] = {
    "text": (TextDelta, "text"),
    "refusal": (RefusalDelta, "text"),
    "reasoning_state": (ReasoningStateDelta, "state"),
}
"""Deltas of one text with its attribute, by the field of `CompletionDelta.content`."""


def read_batch(message: pb.StreamChatCompletionResponse) -> Batch:
    """Return the events of a message, without those of a newer contract: possibly none."""
    batch: Batch = []
    for chunk in message.chunks:
        delta = chunk.delta
        text = delta.text
        if text:
            batch.append(TextDelta(text, delta.index, delta.logprobs_json.encode()))
        elif (event := _read_event(chunk)) is not None:
            batch.append(event)
    return batch


def to_batch_message(batch: Sequence[Event]) -> pb.StreamChatCompletionResponse:
    """Return the message of a batch."""
    message = pb.StreamChatCompletionResponse()
    add = message.chunks.add
    for event in batch:
        _FILLS[type(event)](event, add())
    return message


def _read_event(chunk: pb.ChatCompletionChunk) -> Event | None:
    kind = chunk.WhichOneof("event")
    if kind == "delta":
        return _read_delta(chunk.delta)
    if kind is None:
        return None
    event: Event = _EVENTS[kind].read(getattr(chunk, kind))
    return event


def _read_delta(delta: pb.CompletionDelta) -> Delta:
    kind = delta.WhichOneof("content")
    index, logprobs_json = delta.index, delta.logprobs_json.encode()
    if kind == "tool_call":
        values = _TOOL_CALL.values(delta.tool_call)
        return ToolCallDelta(index=index, logprobs_json=logprobs_json, **values)
    if kind == "reasoning":
        details_json = delta.reasoning_details_json.encode()
        return ReasoningDelta(delta.reasoning, index, logprobs_json, details_json)
    if kind == "extra_json":
        return ExtraDelta(delta.extra_json.encode(), index, logprobs_json)
    if kind is None:
        return TextDelta("", index, logprobs_json)
    made, attribute = _PLAIN_DELTAS[kind]
    value = {attribute: getattr(delta, kind)}
    return made(**value, index=index, logprobs_json=logprobs_json)


def _fill_tool_call(event: ToolCallDelta, chunk: pb.ChatCompletionChunk) -> None:
    delta = chunk.delta
    delta.tool_call.SetInParent()
    _TOOL_CALL.fill(event, delta.tool_call)
    _fill_common(event, delta)


def _fill_extra(event: ExtraDelta, chunk: pb.ChatCompletionChunk) -> None:
    chunk.delta.extra_json = to_json_text(event.extra_json)
    _fill_common(event, chunk.delta)


def _fill_reasoning(event: ReasoningDelta, chunk: pb.ChatCompletionChunk) -> None:
    delta = chunk.delta
    delta.reasoning = event.text
    if event.details_json:
        delta.reasoning_details_json = to_json_text(event.details_json)
    _fill_common(event, delta)


def _filling_delta(field: str, attribute: str) -> _Fill:
    def fill(event: Any, chunk: pb.ChatCompletionChunk) -> None:
        delta = chunk.delta
        setattr(delta, field, getattr(event, attribute))
        _fill_common(event, delta)

    return fill


def _fill_common(event: Delta, delta: pb.CompletionDelta) -> None:
    if event.index:
        delta.index = event.index
    if event.logprobs_json:
        delta.logprobs_json = to_json_text(event.logprobs_json)


def _filling_event(field: str, table: MessageTable[Any, Any]) -> _Fill:
    def fill(event: Any, chunk: pb.ChatCompletionChunk) -> None:
        made = getattr(chunk, field)
        made.SetInParent()
        table.fill(event, made)

    return fill


_FILLS: Mapping[type[Event], _Fill] = {
    ToolCallDelta: _fill_tool_call,
    ExtraDelta: _fill_extra,
    ReasoningDelta: _fill_reasoning,
    **{made: _filling_delta(field, name) for field, (made, name) in _PLAIN_DELTAS.items()},
    **{table.struct: _filling_event(field, table) for field, table in _EVENTS.items()},
}
