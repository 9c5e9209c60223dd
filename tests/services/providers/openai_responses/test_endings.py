"""Ends of answers of OpenAI's Responses: incomplete, failed, cut, and those that are no answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from services.domain.conversation import TextPart
from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.openai_responses.response import ResponsesDecoder
from tests.services.providers.folds import assert_equal
from tests.services.providers.openai_responses.answers import (
    Json,
    added,
    done,
    event,
    response,
    said,
    stream,
    whole,
)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "length")],
)
def test_incomplete_answers(reason: str | None, finish: str) -> None:
    """They have what there is of them, with the reason, even where a tool was called."""
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a'}
    details = {"status": "incomplete", "incomplete_details": {"reason": reason}}
    answer = whole(response(said("Wel"), call, **details))

    assert answer.choices[0].finish_reason == finish
    assert answer.choices[0].message.tool_calls[0].arguments == '{"a'
    last = {"type": "response.incomplete", "response": response(said("Wel"), call, **details)}
    assert_equal(answer, stream([last]))


FAILURES: Sequence[tuple[str, str, ErrorReason]] = (
    ("server_error", "The model failed.", ErrorReason.UPSTREAM_ERROR),
    ("rate_limit_exceeded", "Slow down.", ErrorReason.UPSTREAM_RATE_LIMITED),
    ("invalid_prompt", "The prompt cannot be read.", ErrorReason.UPSTREAM_INVALID_REQUEST),
    ("context_length_exceeded", "It is too long.", ErrorReason.CONTEXT_LENGTH_EXCEEDED),
    ("insufficient_quota", "Pay first.", ErrorReason.UPSTREAM_AUTH_FAILED),
    ("image_file_too_large", "Too many bytes.", ErrorReason.INVALID_IMAGE),
    ("failed_to_download_image", "No such host.", ErrorReason.IMAGE_FETCH_FAILED),
    ("vector_store_timeout", "No results.", ErrorReason.UPSTREAM_TIMEOUT),
)


@pytest.mark.parametrize(("code", "message", "reason"), FAILURES)
def test_failures(code: str, message: str, reason: ErrorReason) -> None:
    """By their codes: in a failed answer, whole or streamed, and in an event."""
    error = {"code": code, "message": message}
    failed = response(status="failed", error=error)
    last = {"type": "response.failed", "response": failed}
    for events in ([last], [added(said("")), last], [{"type": "error", **error, "param": None}]):
        with pytest.raises(UpstreamError) as streamed:
            stream(events)
        assert streamed.value.reason == reason
    with pytest.raises(UpstreamError) as whole_one:
        whole(failed)
    assert whole_one.value.reason == reason


def test_the_usage_of_a_failed_answer() -> None:
    """It is known to the caller's bill."""
    decoder = ResponsesDecoder("m")
    body = response(status="failed", error={"code": "server_error", "message": "x"})
    with pytest.raises(UpstreamError):
        decoder.whole(json.dumps(body).encode())

    assert decoder.usage is not None
    assert decoder.usage.total_token_count == 120


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([added(said("")), event("output_text.delta", delta="He")], "DISCONNECTED"),
        ([done(said("Hello."))], "DISCONNECTED"),
        ([{"type": "response.created", "response": {}}], "DISCONNECTED"),
        ([{"type": "response.completed"}], "BAD_RESPONSE"),
        ([{"type": "something"}], "BAD_RESPONSE"),
    ],
)
def test_a_stream_without_its_last_event_is_cut(events: Sequence[Json], reason: str) -> None:
    """`[DONE]` is no such event."""
    with pytest.raises(UpstreamError) as cut:
        stream(events)

    assert cut.value.reason == f"UPSTREAM_{reason}"


@pytest.mark.parametrize(
    "body",
    [{}, {"object": "response"}, {"choices": []}, {"status": "queued", "output": []}],
)
def test_documents_that_are_no_answer(body: Json) -> None:
    """They are the provider's failure."""
    with pytest.raises(UpstreamError) as failed:
        whole(body)

    assert failed.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


def test_odd_types_are_read_as_well_as_they_can_be() -> None:
    """One field does not fail the answer."""
    item: Json = {
        "type": "message",
        "id": 5,
        "content": [{"type": "output_text", "text": "Hi"}, "x"],
    }
    item |= {"phase": ["a"], "status": None}

    nothing: Any = None
    answer = whole(response(item, nothing, usage={"input_tokens": "12", "output_tokens": 3}))

    assert answer.choices[0].message.content == [TextPart(text="Hi")]
    assert answer.usage is not None
    assert answer.usage.prompt_token_count == 12
