"""Statuses and headers of answers in the OpenAPI document."""

from __future__ import annotations

import json

import pytest

from gateway.errors import ROWS, ApiError
from gateway.openapi import openapi
from gateway.surfaces.answer_headers import notes_header
from gateway.surfaces.anthropic_messages.errors import render_error
from gateway.surfaces.openai_responses.render_whole import render_response
from gateway.surfaces.openai_responses.response_object import AnswerForm
from services.domain.completion import Choice, Completion
from services.domain.conversation import Message, TextPart
from services.domain.events import Note
from tests.gateway.openapi.test_openapi import assert_fits
from tests.stand.planted_responses import RESPONSES


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/responses/input_tokens",
    ],
)
def test_each_failure_is_described(path: str) -> None:
    """Every status has its codes."""
    responses = openapi()["paths"][path]["post"]["responses"]

    for row in ROWS:
        assert f"`{row.code}`" in responses[str(row.http)]["description"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_each_failure_in_anthropics_form_is_described(path: str) -> None:
    """The status and the type are those of the rendered error, which fits the schema."""
    document = openapi()
    responses = document["paths"][path]["post"]["responses"]

    for row in ROWS:
        answer = render_error(ApiError(row.reason, "It failed."), "req-1")
        body = json.loads(answer.body)

        assert f"`{body['error']['type']}`" in responses[str(answer.status)]["description"]
        assert_fits(document, "AnthropicError", body)


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"],
)
def test_the_headers_with_notes_are_described(path: str) -> None:
    """Also the number of those that do not fit."""
    sent = notes_header([Note(param="p", action="dropped", detail="x" * 1000)] * 3)

    assert sent.keys() <= openapi()["paths"][path]["post"]["responses"]["200"]["headers"].keys()
    assert len(sent) == 2


@pytest.mark.parametrize("request_", RESPONSES)
def test_requests_of_responses_fit(request_: str) -> None:
    """Those with each kind of item."""
    assert_fits(openapi(), "CreateResponseRequest", RESPONSES[request_])


def test_a_response_fits() -> None:
    """With a message and its usage."""
    message = Message(role="assistant", content=[TextPart(text="High tide.")])
    completion = Completion(
        completion_id="chatcmpl-1",
        model="m",
        create_time_s=1_706_745_600,
        choices=[Choice(message=message, finish_reason="length")],
    )
    response = json.loads(render_response(completion, AnswerForm()))
    assert_fits(openapi(), "Response", response)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
