"""Answers in which any value may have any type."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from services.common.contract.chat import to_completion_message
from services.common.contract.chat_events import to_batch_message
from services.completions.fold import Fold
from services.domain.embeddings import EmbeddingSpec
from services.domain.events import Event
from services.errors import UpstreamError
from services.providers.base import Decoder, SseEvent
from services.providers.registry import DIALECTS, EMBEDDING_DIALECTS, RAW_LANES
from tests.services.providers.targets import target_of

Json = dict[str, Any]

ODD_VALUES: Sequence[object] = (
    *(None, True, -1, 10**30, "x"),
    *([], [None, "x"], [{"type": "x"}], {"type": "x"}, {"a": {"b": [1]}}),
)

CHAT_MESSAGE: Json = {
    "role": "assistant",
    "content": [
        {"type": "text", "text": "Hi", "citations": [1]},
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
        {"type": "image_url", "image_url": {"url": "data:"}},
    ],
    "reasoning_content": "Hm",
    "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "Hm", "signature": "s"}],
    "tool_calls": [
        {
            "index": 0,
            "id": "c1",
            "type": "function",
            "function": {"name": "look", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": "s"}},
        },
        {"index": 1, "id": "c2", "type": "custom", "custom": {"name": "patch", "input": "x"}},
    ],
    "function_call": {"name": "look", "arguments": "{}"},
    "annotations": [{"type": "url_citation"}],
    "audio": {"id": "a", "data": "d"},
    "refusal": "No.",
}
CHAT_USAGE: Json = {
    "prompt_tokens": 5,
    "completion_tokens": 6,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2},
    "cost": 1,
}


def chat(member: str) -> Json:
    """Chat completion, or a chunk of one, whose message is the choice's member of this name."""
    choice: Json = {
        "index": 0,
        member: CHAT_MESSAGE,
        "finish_reason": "stop",
        "native_finish_reason": "stop",
        "logprobs": {"content": [{"token": "a", "logprob": -1}], "tokens": ["a"]},
        "token_ids": [1],
        "usage": {"prompt_tokens": 1},
        "error": None,
    }
    return {
        "id": "c",
        "model": "m",
        "system_fingerprint": "fp",
        "citations": ["u"],
        "x_groq": {"usage": {"prompt_tokens": 1}, "error": None},
        "choices": [choice],
        "usage": CHAT_USAGE,
        "error": None,
    }


MESSAGE_USAGE: Json = {
    "input_tokens": 1,
    "output_tokens": 2,
    "cache_creation": {"ephemeral_1h_input_tokens": 1},
    "output_tokens_details": {"thinking_tokens": 1},
    "iterations": [{"type": "compaction", "output_tokens": 1}],
    "server_tool_use": {"web_search_requests": 1},
}
BLOCKS: Sequence[Json] = (
    {"type": "text", "text": "Hi", "citations": [{"type": "web_search_result_location"}]},
    {"type": "thinking", "thinking": "Hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}},
    {"type": "web_search_tool_result", "content": {"type": "web_search_tool_result_error"}},
)
MESSAGE: Json = {
    "type": "message",
    "id": "m",
    "content": list(BLOCKS),
    "stop_reason": "refusal",
    "stop_details": {"explanation": "No."},
    "usage": MESSAGE_USAGE,
}
DELTAS: Sequence[tuple[int, Json]] = (
    (0, {"type": "text_delta", "text": "x"}),
    (0, {"type": "citations_delta", "citation": {"type": "char_location"}}),
    (1, {"type": "thinking_delta", "thinking": "y"}),
    (1, {"type": "signature_delta", "signature": "s"}),
    (3, {"type": "input_json_delta", "partial_json": "{}"}),
    (4, {"type": "other_delta", "partial_json": "{}"}),
)
"""Deltas, each with the index of its block."""


def message_events() -> Iterator[Json]:
    """Stream of the Messages API."""
    yield {"type": "message_start", "message": {**MESSAGE, "content": []}}
    for index, block in enumerate(BLOCKS):
        yield {"type": "content_block_start", "index": index, "content_block": block}
    for index, delta in DELTAS:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ending = {"stop_reason": "refusal", "stop_details": {"explanation": "No."}}
    yield {"type": "message_delta", "delta": ending, "usage": MESSAGE_USAGE}
    yield {"type": "message_stop"}


ITEMS: Sequence[Json] = (
    {
        "type": "reasoning",
        "id": "i0",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "encrypted_content": "e",
    },
    {
        "type": "message",
        "id": "i1",
        "content": [
            {
                "type": "output_text",
                "text": "Hi",
                "annotations": [{"type": "url_citation", "start_index": 0}],
                "logprobs": [{"token": "a", "top_logprobs": [{"token": "b"}]}],
            },
            {"type": "refusal", "refusal": "No."},
            {"type": "other", "x": 1},
        ],
    },
    {"type": "function_call", "id": "i2", "call_id": "c1", "name": "look", "arguments": "{}"},
    {"type": "web_search_call", "id": "i3", "action": {"type": "search"}},
)
RESPONSE: Json = {
    "id": "r",
    "status": "completed",
    "output": list(ITEMS),
    "incomplete_details": {"reason": None},
    "error": None,
    "usage": {
        "input_tokens": 1,
        "output_tokens": 1,
        "total_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}


RESPONSE_DELTAS = ("reasoning_summary_text", "output_text", "function_call_arguments")
"""Types of deltas, by the index of their item."""


def response_events() -> Iterator[Json]:
    """Stream of the Responses API."""
    yield {"type": "response.created", "response": {**RESPONSE, "output": []}}
    for index, item in enumerate(ITEMS):
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        if index < len(RESPONSE_DELTAS):
            kind = f"response.{RESPONSE_DELTAS[index]}.delta"
            yield {"type": kind, "output_index": index, "delta": "d", "logprobs": [{"token": "a"}]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": RESPONSE}


WHOLE: dict[str, Json] = {
    "openai": chat("message"),
    "openrouter": chat("message"),
    "anthropic": MESSAGE,
    "openai-responses": RESPONSE,
}
STREAMS: dict[str, Sequence[Json]] = {
    "openai": [chat("delta")],
    "openrouter": [chat("delta")],
    "anthropic": list(message_events()),
    "openai-responses": list(response_events()),
}


VECTORS: dict[str, Json] = {
    "bedrock": {"embeddings": {"float": [[1.0, 2.0]]}, "inputTextTokenCount": 1},
    "cohere": {
        "embeddings": {"float": [[1.0, 2.0]]},
        "meta": {"billed_units": {"input_tokens": 1}},
    },
    "google": {"embeddings": [{"values": [1.0, 2.0]}], "usageMetadata": {"promptTokenCount": 1}},
    "openai": {"data": [{"index": 0, "embedding": [1.0, 2.0]}], "usage": {"prompt_tokens": 1}},
    "openrouter": {"data": [{"embedding": "AACAPw=="}], "usage": {"total_tokens": 1}},
    "vertex": {
        "predictions": [{"embeddings": {"values": [1.0], "statistics": {"token_count": 1}}}],
    },
}
"""Answers with one vector, by the dialect."""


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of a value and of all values in it."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    for step, each in enumerate(value) if isinstance(value, list) else inner:
        yield from places(each, (*path, step))


def changed(value: object, path: tuple[Any, ...], odd: object) -> Any:
    """Return a copy of a value with another one at a path."""
    if not path:
        return odd
    made = found = copy.deepcopy(value)
    for step in path[:-1]:
        found = found[step]  # type: ignore[index]
    found[path[-1]] = odd  # type: ignore[index]
    return made


def variants(value: object) -> Iterator[Any]:
    """Yield copies of a value that have one odd value each."""
    for path in places(value):
        for odd in ODD_VALUES:
            yield changed(value, path, odd)


def use(events: list[Event]) -> None:
    """Do with the events what the service does: send them over gRPC, and fold them."""
    to_batch_message(events)
    fold = Fold()
    fold.add(events)
    to_completion_message(fold.answer)


def sse(dialect: str, event: object) -> SseEvent:
    """Return an event as its provider names it."""
    kind = event.get("type") if isinstance(event, dict) else None
    is_named = isinstance(kind, str) and dialect not in {"openai", "openrouter"}
    return SseEvent(str(kind) if is_named else "", json.dumps(event).encode())


def decoder_of(dialect: str) -> Decoder:
    """Return a decoder that also reads reasoning in OpenRouter's form."""
    return DIALECTS[dialect].decoder(target_of("m", dialect), details=True)


def test_every_dialect_has_an_answer() -> None:
    """The tests below leave out no dialect."""
    assert WHOLE.keys() == STREAMS.keys() == DIALECTS.keys()
    assert VECTORS.keys() == EMBEDDING_DIALECTS.keys()


@pytest.mark.parametrize("dialect", WHOLE)
def test_a_whole_answer_is_read_or_is_the_providers_failure(dialect: str) -> None:
    """Whatever one of its values is: no other exception leaves the decoder."""
    for answer in variants(WHOLE[dialect]):
        body = json.dumps(answer).encode()
        with suppress(UpstreamError):
            use(decoder_of(dialect).whole(body).events())
        if dialect in RAW_LANES:
            with suppress(UpstreamError):
                raw = RAW_LANES[dialect].decoder(target_of("m", dialect), streamed=False)
                raw.whole(body)
                use(raw.unread())


@pytest.mark.parametrize("dialect", STREAMS)
def test_a_stream_is_read_or_is_the_providers_failure(dialect: str) -> None:
    """Whatever one value of one of its events is."""
    events = STREAMS[dialect]
    sent = [sse(dialect, event) for event in events]
    for number, event in enumerate(events):
        for odd in variants(event):
            decoder, decoded = decoder_of(dialect), []
            with suppress(UpstreamError):
                for each in (*sent[:number], sse(dialect, odd), *sent[number + 1 :]):
                    decoded += decoder.feed(each)
                decoded += decoder.finish()
            use(decoded)


@pytest.mark.parametrize("dialect", VECTORS)
def test_vectors_are_read_or_are_the_providers_failure(dialect: str) -> None:
    """Whatever one value of their answer is."""
    spec = EmbeddingSpec(model="m", texts=["Hi"])
    for answer in variants(VECTORS[dialect]):
        with suppress(UpstreamError):
            found = EMBEDDING_DIALECTS[dialect].read(
                json.dumps(answer).encode(), spec, as_numbers=False
            )
            assert len(found.vectors.embeddings) == 1
            assert found.tokens >= 0
