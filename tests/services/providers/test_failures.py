"""Classification of providers' errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.providers.failure_rules import CODES, GENERAL_CODES, STATUSES, TEXTS
from services.providers.failures import (
    MESSAGE_MAX,
    classify,
    provider_failure,
    read_error,
)

NESTED = json.dumps({"error": {"message": "inner", "type": "t", "param": "p", "code": "c"}})

BODIES = {
    "openai": {"error": {"message": "inner", "type": "t", "param": "p", "code": "c"}},
    "flat": {"object": "error", "message": "inner", "type": "t", "param": "p", "code": "c"},
    "array": [{"error": {"message": "inner", "type": "t", "param": "p", "code": "c"}}],
    "success": {
        "success": False,
        "error": {"message": "inner", "type": "t", "param": "p", "code": "c"},
    },
    "raw string": {"error": {"message": "outer", "code": 400, "metadata": {"raw": NESTED}}},
    "raw object": {"error": {"message": "outer", "metadata": {"raw": json.loads(NESTED)}}},
    "in the message": {"error": {"message": NESTED, "code": 400}},
    "in a string": NESTED,
}


@pytest.mark.parametrize("shape", BODIES)
def test_errors_are_read_from_bodies_of_any_form(shape: str) -> None:
    """An inner error takes precedence over an outer one."""
    error = read_error(json.dumps(BODIES[shape]).encode())

    assert (error.message, error.kind, error.param, error.code) == ("inner", "t", "p", "c")


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b'{"detail":"No key"}', "No key", ""),
        (b'{"detail":[{"loc":["body","tools",0],"msg":"Too odd"}]}', "Too odd", "tools.0"),
        (b'{"code":"Some text","error":"Other text"}', "Other text", ""),
        (b'{"error":{"message":"m","metadata":{"raw":"The reason"}}}', "The reason", ""),
        (b'{"error":{"message":"No \\ud83d","param":"n"}}', "No \ufffd", "n"),
        (b"plain words", "plain words", ""),
        (b"<!DOCTYPE html><title>502</title>", "", ""),
        (b"", "", ""),
        (b'{"error":null}', "", ""),
    ],
)
def test_bodies_without_an_error_object_are_read_as_far_as_they_go(
    body: bytes, message: str, param: str
) -> None:
    """Strings, lists of faults, plain text and HTML pages."""
    error = read_error(body)

    assert (error.message, error.param) == (message, param)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "error",
                        "message",
                        "code",
                        "type",
                        "param",
                        "metadata",
                        "raw",
                        "headers",
                        "detail",
                        "details",
                        "loc",
                        "status",
                        "retryDelay",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_gives_a_message_that_may_be_shown(found: object) -> None:
    """It is printable, short, and never empty."""
    error = provider_failure(500, {}, json.dumps(found).encode())

    assert error.message.isprintable()
    assert 0 < len(error.message) <= MESSAGE_MAX


def test_the_nesting_of_errors_is_limited() -> None:
    """An error that quotes itself many times does not exhaust the stack."""
    text = "deep"
    for _ in range(12):
        text = json.dumps({"error": {"message": text}})

    assert read_error(text.encode()).message == ""


CASES = [
    # Our key, our money.
    (401, "", "", "", "UPSTREAM_AUTH_FAILED"),
    (402, "invalid_request_error", "", "Insufficient Balance", "UPSTREAM_AUTH_FAILED"),
    (
        400,
        "",
        "invalid_request_error",
        "Your credit balance is too low to access the API.",
        "UPSTREAM_AUTH_FAILED",
    ),
    (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota.",
        "UPSTREAM_AUTH_FAILED",
    ),
    (
        403,
        "",
        "",
        "The team has used all available credits or reached its monthly spending limit.",
        "UPSTREAM_AUTH_FAILED",
    ),
    (
        400,
        "",
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
        "UPSTREAM_AUTH_FAILED",
    ),
    (403, "", "", "You are not allowed to sample from this model", "UPSTREAM_AUTH_FAILED"),
    # Words that are not what they look like.
    (400, "", "", "Unknown parameter: 'credit_card'.", "UPSTREAM_INVALID_REQUEST"),
    (
        400,
        "",
        "",
        "Invalid schema for function 'get_credits': no properties.",
        "UPSTREAM_INVALID_REQUEST",
    ),
    (
        400,
        "",
        "",
        "max_tokens is too large: 9. This model supports at most 8 completion tokens.",
        "UPSTREAM_INVALID_REQUEST",
    ),
    (400, "", "", "'context' is not a valid field", "UPSTREAM_INVALID_REQUEST"),
    (500, "", "", "Traceback: insufficient balance of brackets", "UPSTREAM_ERROR"),
    (
        429,
        "",
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota. Please retry in 36.5s.",
        "UPSTREAM_RATE_LIMITED",
    ),
    # Limits.
    (429, "", "", "", "UPSTREAM_RATE_LIMITED"),
    (
        429,
        "rate_limit_exceeded",
        "tokens",
        "Request too large for m on tokens per min",
        "REQUEST_TOO_LARGE",
    ),
    (413, "rate_limit_exceeded", "tokens", "Request too large for model `m`", "REQUEST_TOO_LARGE"),
    (413, "", "", "", "REQUEST_TOO_LARGE"),
    (400, "context_length_exceeded", "", "", "CONTEXT_LENGTH_EXCEEDED"),
    (
        400,
        "400",
        "BadRequestError",
        "This model's maximum context length is 5 tokens.",
        "CONTEXT_LENGTH_EXCEEDED",
    ),
    (
        400,
        "",
        "invalid_request_error",
        "prompt is too long: 9 tokens > 8 maximum",
        "CONTEXT_LENGTH_EXCEEDED",
    ),
    (
        400,
        "",
        "",
        "The input token count (9) exceeds the maximum number of tokens allowed (8).",
        "CONTEXT_LENGTH_EXCEEDED",
    ),
    # Models.
    (404, "", "", "", "MODEL_NOT_FOUND"),
    (404, "", "invalid_request_error", "Not here", "MODEL_NOT_FOUND"),
    (400, "model_decommissioned", "", "", "MODEL_NOT_FOUND"),
    (400, "", "", "foo/bar is not a valid model ID", "MODEL_NOT_FOUND"),
    (404, "", "", "No endpoints found that support tool use.", "UNSUPPORTED_FEATURE"),
    # Contents.
    (403, "", "", "Content violates usage guidelines.", "CONTENT_FILTERED"),
    (400, "content_filter", "", "The response was filtered due to the prompt", "CONTENT_FILTERED"),
    (
        400,
        "invalid_image_url",
        "",
        "Error while downloading https://example.com/a.png.",
        "IMAGE_FETCH_FAILED",
    ),
    (400, "", "invalid_request_error", "Could not process image", "INVALID_IMAGE"),
    # Failures of the provider.
    (500, "", "server_error", "", "UPSTREAM_ERROR"),
    (502, "", "", "", "UPSTREAM_ERROR"),
    (503, "", "", "Loading model", "UPSTREAM_OVERLOADED"),
    (529, "", "overloaded_error", "Overloaded", "UPSTREAM_OVERLOADED"),
    (429, "engine_overloaded_error", "", "", "UPSTREAM_OVERLOADED"),
    (504, "", "", "", "UPSTREAM_TIMEOUT"),
    (408, "", "", "", "UPSTREAM_TIMEOUT"),
    (524, "", "", "", "UPSTREAM_TIMEOUT"),
    (302, "", "", "", "UPSTREAM_BAD_RESPONSE"),
    # In a stream there is no status.
    (0, "", "overloaded_error", "Overloaded", "UPSTREAM_OVERLOADED"),
    (0, "", "rate_limit_error", "", "UPSTREAM_RATE_LIMITED"),
    (0, "", "invalid_request_error", "Odd", "UPSTREAM_INVALID_REQUEST"),
    (0, "", "", "Something happened", "UPSTREAM_ERROR"),
]


@pytest.mark.parametrize(("status", "code", "kind", "message", "reason"), CASES)
def test_status_code_and_message_give_the_reason(
    status: int, code: str, kind: str, message: str, reason: str
) -> None:
    """The message takes precedence over the code, and the code over the status."""
    assert classify(status, code, kind, message) == reason


def test_tables_are_consistent() -> None:
    """Names are in the form in which they are looked up, and phrases are never empty."""
    for name in (*CODES, *GENERAL_CODES):
        assert name == name.lower().replace("-", "_")
    assert not any(rule.pattern.search("") for rule in TEXTS)
    assert {300, 400, 500} <= STATUSES.keys()


def test_the_error_type_of_openrouter_counts() -> None:
    """Its `code` only repeats the status."""
    metadata = {"error_type": "provider_overloaded"}
    body = json.dumps({"error": {"code": 502, "message": "No", "metadata": metadata}})

    assert provider_failure(502, {}, body.encode()).reason == ErrorReason.UPSTREAM_OVERLOADED


def test_an_error_with_status_200_has_the_status_of_its_body() -> None:
    """Its reason follows from that."""
    error = provider_failure(200, {}, b'{"error":{"code":429,"message":"Slow down"}}')

    assert error.status == 429
    assert error.reason == ErrorReason.UPSTREAM_RATE_LIMITED


def test_an_unknown_model_names_the_field_model() -> None:
    """Few providers name it."""
    error = provider_failure(
        404, {}, b'{"error":{"message":"No such model","type":"not_found_error"}}'
    )

    assert (error.reason, error.param) == ("MODEL_NOT_FOUND", "model")


OF_THE_REQUEST = [
    (402, "Needs more credit. You asked for up to 64000 tokens, but can only afford 1234."),
    (402, "Add credits, or use fewer max_tokens."),
    (402, "Prompt tokens limit exceeded: 20000 > 1999."),
    (429, "Extra usage is required for long context requests."),
    (403, "Your organization must be verified to stream this model."),
]


@pytest.mark.parametrize(("status", "message"), OF_THE_REQUEST)
def test_a_refusal_that_another_request_would_not_get(status: int, message: str) -> None:
    """It does not count against the channel, whose circuit breaker stays closed."""
    body = json.dumps({"error": {"message": message}}).encode()

    assert provider_failure(status, {}, body).is_of_request


def test_a_page_of_a_firewall_is_about_one_prompt() -> None:
    """The status 403 with HTML is that of a firewall in front of the provider."""
    assert provider_failure(403, {}, b"\n<!DOCTYPE html><title>Blocked</title>").is_of_request
    assert not provider_failure(401, {}, b"<html>").is_of_request


@pytest.mark.parametrize("status", [401, 402, 403, 429])
def test_a_refusal_of_the_account_concerns_all_requests(status: int) -> None:
    """It counts against the channel."""
    body = b'{"error":{"message":"Insufficient credits"}}'

    assert not provider_failure(status, {}, body).is_of_request
