from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

import pytest

from services.completions.fold import fold
from services.domain.events import Event
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import Decoder, SseEvent
from services.providers.openai.response import OpenAiDecoder
from services.providers.openai_responses.response import ResponsesDecoder
from tests.stand.opcodes import count_opcodes

ARGUMENTS = '{"a":1}'


def event(data: object, name: str = "") -> SseEvent:
    """An event with this JSON."""
    return SseEvent(name, json.dumps(data).encode())


def named(name: str, **members: object) -> SseEvent:
    """An event with its name as type."""
    return event({"type": name, **members}, name)


def chunk(delta: object, finish_reason: str | None = None) -> SseEvent:
    """A chunk of OpenAI's."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "1", "choices": [choice]})


def openai(calls: int) -> Iterator[SseEvent]:
    """Calls in fragments, each with an index and an ID."""
    for number in range(calls):
        function = {"name": "f", "arguments": ""}
        begin = {"index": number, "id": f"call_{number}", "type": "function", "function": function}
        yield chunk({"tool_calls": [begin]})
        for piece in (ARGUMENTS[:3], ARGUMENTS[3:]):
            more = {"index": number, "function": {"arguments": piece}}
            yield chunk({"tool_calls": [more]})
    yield chunk({}, "tool_calls")


def one_index(calls: int) -> Iterator[SseEvent]:
    """Whole calls at one index and without IDs."""
    for number in range(calls):
        call = {"index": 0, "function": {"name": f"f{number}", "arguments": ARGUMENTS}}
        yield chunk({"tool_calls": [call]})
    yield chunk({}, "tool_calls")


def anthropic(calls: int) -> Iterator[SseEvent]:
    """A block of reasoning, and one for each call."""
    message = {"id": "m", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}
    yield named("message_start", message=message)
    blocks = [{"type": "thinking", "thinking": "a", "signature": "b"}] + [
        {"type": "tool_use", "id": f"toolu_{number}", "name": "f", "input": {}}
        for number in range(calls)
    ]
    for index, block in enumerate(blocks):
        yield named("content_block_start", index=index, content_block=block)
        if index:
            delta = {"type": "input_json_delta", "partial_json": ARGUMENTS}
            yield named("content_block_delta", index=index, delta=delta)
        yield named("content_block_stop", index=index)
    yield named("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 3})
    yield named("message_stop")


def responses(calls: int) -> Iterator[SseEvent]:
    """An item for each call."""
    head = {"id": "r", "object": "response", "model": "m"}
    yield named("response.created", response={**head, "status": "in_progress", "output": []})
    items: list[dict[str, str]] = []
    for index in range(calls):
        named_call = {"call_id": f"call_{index}", "name": "f"}
        item = {"type": "function_call", "id": f"fc_{index}", **named_call, "arguments": ""}
        items.append({**item, "arguments": ARGUMENTS, "status": "completed"})
        place = {"output_index": index}
        yield named("response.output_item.added", **place, item=item)
        yield named(
            "response.function_call_arguments.delta", **place, item_id=item["id"], delta=ARGUMENTS
        )
        yield named("response.output_item.done", **place, item=items[-1])
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    whole = {**head, "status": "completed", "output": items, "usage": usage}
    yield named("response.completed", response=whole)


ANSWERS: Mapping[str, tuple[Callable[[int], Iterator[SseEvent]], Callable[[], Decoder]]] = {
    "openai": (openai, OpenAiDecoder),
    "openai, one index": (one_index, OpenAiDecoder),
    "anthropic": (anthropic, AnthropicDecoder),
    "openai_responses": (responses, lambda: ResponsesDecoder("m")),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_work_for_tool_calls_grows_with_their_number(kind: str) -> None:
    """Not with its square: twice as many calls take about twice as many opcodes."""
    answer, make = ANSWERS[kind]

    def opcodes(calls: int) -> int:
        arrived = list(answer(calls))

        def decode() -> None:
            decoder, events = make(), list[Event]()
            for each in arrived:
                events += decoder.feed(each)
            events += decoder.finish()
            (choice,) = fold(events).choices
            assert [one.arguments for one in choice.message.tool_calls] == [ARGUMENTS] * calls

        return count_opcodes(decode)

    opcodes(2)  # Whatever is made once.
    assert opcodes(200) < 2.1 * opcodes(100)
