"""Errors in answers with status 200, and answers that cannot be read."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.domain.events import (
    TextDelta,
)
from services.errors import UpstreamError
from services.providers.base import SseEvent
from services.providers.openai.response import OpenAiDecoder
from tests.services.providers.openai.answers import STOP, delta, deltas, event, stream


@pytest.mark.parametrize(
    "chunk",
    [
        {"error": {"message": "Slow down", "code": 429}},
        delta(content="a") | {"error": {"message": "Slow down", "code": 429}},
        {
            "choices": [
                {
                    "delta": {},
                    "finish_reason": "stop",
                    "error": {"message": "Slow down", "code": 429},
                }
            ]
        },
        {"object": "error", "message": "Slow down", "type": "rate_limit_error"},
        {"choices": [], "x_groq": {"error": {"message": "Slow down", "status": 429}}},
        {"code": "Throttling.RateQuota", "message": "Slow down", "request_id": "r"},
        {"code": 429, "msg": "Slow down"},
        {"status": 429, "message": "Slow down", "choices": None},
    ],
)
def test_errors_are_found_wherever_providers_put_them(chunk: dict[str, Any]) -> None:
    """Also after the finish reason."""
    for before in ([], [delta(content="a"), STOP]):
        with pytest.raises(UpstreamError) as failed:
            stream(*before, chunk)
        assert failed.value.reason == ErrorReason.UPSTREAM_RATE_LIMITED
        assert failed.value.message == "Slow down"


@pytest.mark.parametrize(
    "data", [b'{"error":{"message":"Oh","code":503}}', b'{"message":"Oh","code":503}']
)
def test_an_event_named_error_is_one(data: bytes) -> None:
    """Its data may have any form."""
    with pytest.raises(UpstreamError) as failed:
        OpenAiDecoder().feed(SseEvent("error", data))
    assert failed.value.reason == ErrorReason.UPSTREAM_OVERLOADED


@pytest.mark.parametrize(
    "chunk",
    [
        {"detail": "Too long"},
        {"error_code": 9, "error_msg": "Too long"},
        {"id": "x", "choices": None, "base_resp": {"status_code": 2013, "status_msg": "Too long"}},
    ],
)
def test_errors_that_only_their_members_show(chunk: dict[str, Any]) -> None:
    """They are no members of a whole answer, though `[DONE]` follows."""
    with pytest.raises(UpstreamError, match="Too long"):
        stream(delta(content="a"), chunk)
    with pytest.raises(UpstreamError, match="Too long"):
        OpenAiDecoder().whole(json.dumps(chunk).encode())


@pytest.mark.parametrize(
    "chunk",
    [
        {"status": "queued", "message": "Second in the queue."},
        {"choices": None, "base_resp": {"status_code": 0, "status_msg": "success"}},
        {"choices": [], "detail": "fine"},
    ],
)
def test_other_chunks_without_choices_are_no_errors(chunk: dict[str, Any]) -> None:
    """Their members are passed on."""
    assert deltas(stream(delta(content="a"), chunk, STOP)) == [TextDelta("a")]


@pytest.mark.parametrize("error", [None, {}, "", False, []])
def test_an_empty_error_is_none(error: object) -> None:
    """Some servers send the field always."""
    assert deltas(stream(delta(content="a") | {"error": error}, STOP)) == [TextDelta("a")]


@pytest.mark.parametrize("data", [b"{", b"hello", b"[1]", b"5", b'{"choices":5}x', b"\xff", b'"a"'])
def test_data_that_is_no_json_object_is_a_bad_response(data: bytes) -> None:
    """In a stream or whole."""
    with pytest.raises(UpstreamError) as streamed:
        OpenAiDecoder().feed(SseEvent("", data))
    with pytest.raises(UpstreamError) as whole_answer:
        OpenAiDecoder().whole(data)
    for refused in (streamed, whole_answer):
        assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize("field", ["content", "reasoning", "refusal", "audio", "annotations"])
def test_text_that_is_not_unicode_is_a_bad_response(field: str) -> None:
    """Bytes that are not UTF-8, and halves of surrogate pairs, are not passed on."""
    for odd in (b'"\xff"', b'["\xff"]', b'{"a":"\\ud800"}'):
        data = b'{"choices":[{"delta":{"%b":%b}}]}' % (field.encode(), odd)
        with pytest.raises(UpstreamError) as refused:
            OpenAiDecoder().feed(SseEvent("", data))
        assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize(
    "body", [b"{}", b'{"choices":[]}', b'{"choices":null}', b"<html></html>", b""]
)
def test_a_whole_answer_without_choices_is_a_bad_response(body: bytes) -> None:
    """Its status of 200 does not matter."""
    with pytest.raises(UpstreamError) as refused:
        OpenAiDecoder().whole(body)
    assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize("index", [-1, 128, 10**9])
def test_indexes_have_bounds(index: int) -> None:
    """A large index allocates nothing."""
    with pytest.raises(UpstreamError):
        stream({"choices": [{"index": index, "delta": {"content": "a"}}]})


KEYS = {"choices", "index", "delta", "message", "content", "tool_calls", "function", "name", "id"}
KEYS |= {"arguments", "finish_reason", "usage", "prompt_tokens", "error", "reasoning_details"}
KEYS |= {"logprobs", "x_groq", "type", "text", "thinking", "audio", "annotations", "object"}

SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(KEYS)), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(st.lists(SCRAPS, max_size=4))
def test_any_json_is_read_or_is_an_upstream_error(events: list[object]) -> None:
    """No other exception leaves the decoder, and the parts of a usage fit."""
    decoder = OpenAiDecoder(pack_state=json.dumps)
    with suppress(UpstreamError):
        for data in events:
            decoder.feed(event(data))
        decoder.finish()
    if decoder.usage is not None:
        usage = decoder.usage
        assert usage.total_token_count == usage.prompt_token_count + usage.completion_token_count
        assert usage.thinking_token_count <= usage.completion_token_count
