"""What providers' errors mean."""

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
    public_message,
    read_error,
)
from services.providers.retry_delay import retry_after_s

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
def test_reads_bodies_of_every_shape(shape: str) -> None:
    """The same error is found in whatever shape, and an inner one goes before an outer one."""
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
def test_reads_odd_bodies(body: bytes, message: str, param: str) -> None:
    """Strings, lists of faults, plain text and pages are understood as far as they go."""
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
def test_no_body_is_too_odd(found: object) -> None:
    """Any JSON gives an error with a message that is safe to show."""
    error = provider_failure(500, {}, json.dumps(found).encode())

    assert error.message.isprintable()
    assert 0 < len(error.message) <= MESSAGE_MAX


def test_nesting_ends() -> None:
    """An error that quotes itself without end is read without end of the stack."""
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
    # Faults of theirs.
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
def test_classifies(status: int, code: str, kind: str, message: str, reason: str) -> None:
    """Status, code and message together tell the reason."""
    assert classify(status, code, kind, message) == reason


def test_tables_are_consistent() -> None:
    """Names are in the form in which they are looked up, and phrases are never empty."""
    for name in (*CODES, *GENERAL_CODES):
        assert name == name.lower().replace("-", "_")
    assert not any(rule.pattern.search("") for rule in TEXTS)
    assert {300, 400, 500} <= STATUSES.keys()


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "message", "wait"),
    [
        ({"retry-after": "11"}, "", 11),
        ({"retry-after": "1", "retry-after-ms": "0"}, "", 1),
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT", "date": DATE}, "", 30),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:07 GMT", "date": DATE}, "", None),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT"}, "", None),
        ({"x-ratelimit-reset": "784111781000", "date": DATE}, "", None),
        ({"x-ratelimit-reset": "0784111781000", "date": DATE}, "", 4),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "999999999"}, "", 86_400),
        ({}, "Please try again in 26.604s. Visit the docs", 26.604),
        ({}, "Please try again in 1m0.36s.", 60.36),
        ({}, "try again in 6ms.", 0.006),
        ({}, "Please retry in 36.5s", 36.5),
        ({}, "Please retry after 20 seconds", 20),
        ({}, "Try again in 2 minutes", 120),
        ({}, "Please retry shortly", None),
        ({}, "Limit 15000, Used 11972", None),
        ({"retry-after": "2"}, "try again in 9s", 2),
    ],
)
def test_finds_the_wait(headers: dict[str, str], message: str, wait: float | None) -> None:
    """Seconds, milliseconds, dates and sentences tell how long to wait; garbage tells nothing."""
    assert retry_after_s(headers, message) == (None if wait is None else pytest.approx(wait))


def test_waits_of_a_provider_behind_the_provider() -> None:
    """Headers within the body count where the answer itself has none."""
    metadata = {"headers": {"X-RateLimit-Reset": "1759671180000"}}
    body = json.dumps({"error": {"code": 429, "message": "Slow", "metadata": metadata}})
    details = [{"@type": "RetryInfo", "retryDelay": "36s"}]
    google = json.dumps([{"error": {"code": 429, "message": "Slow", "details": details}}])

    date = {"date": "Sun, 05 Oct 2025 13:32:50 GMT"}
    assert provider_failure(429, date, body.encode()).retry_after_s == 10
    assert provider_failure(429, {}, google.encode()).retry_after_s == 36


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdef123456",
        "sk-or-v1-0123456789abcdef",
        "sk-abc***xyz",
        "gsk_0123456789abcdef",
        "AIzaSyA0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "org-AbCdEf0123456789",
        "user_2abcDEF0123456789",
        "01234567-89ab-cdef-0123-456789abcdef",
        "someone@example.com",
        "10.0.12.7:8000",
        "0123456789abcdef0123456789abcdef0123456789abcdef",
    ],
)
def test_hides_secrets(secret: str) -> None:
    """Keys, IDs of accounts and addresses do not reach callers, wherever they stand."""
    for message in (secret, f"Key {secret}, sorry", f"({secret})", f'"{secret}"', f"x={secret}."):
        assert secret not in public_message(message)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("see https://a.example/b?key=secret-1#f now", "see https://a.example/b now"),
        ("https://me:secret@a.example/b failed", "https://a.example/b failed"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer [hidden]"),
        ("api_key=abc, sorry", "api_key=[hidden], sorry"),
        ("two\nlines\tand \x1b[31mred\x00", "two lines and [31mred"),
        ("data:image/png;base64,iVBORw0KGgo= is odd", "data:[hidden] is odd"),
        ("request_timeout of user_defined_key_value", "request_timeout of user_defined_key_value"),
        ("", "The provider gave no reason."),
        ("\x00\n", "The provider gave no reason."),
        (
            "The model `gpt-4o-2024-08-06` takes 3 tokens.",
            "The model `gpt-4o-2024-08-06` takes 3 tokens.",
        ),
    ],
)
def test_public_messages(message: str, shown: str) -> None:
    """A message is one printable line that keeps what helps."""
    assert public_message(message) == shown


def test_long_messages_are_cut() -> None:
    """What is too long ends with dots, and half a key at the end of what is read is no leak."""
    assert len(public_message("word " * 1000)) == MESSAGE_MAX
    assert "sk-se" not in public_message("a" * 3990 + " sk-secret-key-0123")


def test_speaks_for_itself_about_its_own_account() -> None:
    """What a provider says about the operator's account is not for callers."""
    error = provider_failure(402, {}, b'{"error":{"message":"Team blue owes 7 dollars"}}')

    assert "blue" not in error.message


def test_finer_codes_within() -> None:
    """OpenRouter's `error_type` tells more than its `code`, which is the status again."""
    metadata = {"error_type": "provider_overloaded"}
    body = json.dumps({"error": {"code": 502, "message": "No", "metadata": metadata}})

    assert provider_failure(502, {}, body.encode()).reason == ErrorReason.UPSTREAM_OVERLOADED


def test_status_in_the_body() -> None:
    """An error in an answer with status 200 has the status that its body states."""
    error = provider_failure(200, {}, b'{"error":{"code":429,"message":"Slow down"}}')

    assert error.status == 429
    assert error.reason == ErrorReason.UPSTREAM_RATE_LIMITED


@pytest.mark.parametrize(
    ("param", "kept"), [("messages[0].content", True), ("a b", False), ("x" * 101, False)]
)
def test_params(param: str, kept: bool) -> None:
    """A parameter is named only if it looks like one."""
    body = json.dumps({"error": {"message": "m", "param": param}})

    assert provider_failure(400, {}, body.encode()).param == (param if kept else "")


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("unsupported_value", True),
        ("InvalidParameter", True),
        ("1214", True),
        (400, False),  # The status again.
        (None, False),
        ("invalid_request_error", False),  # As general as ours.
        ("Client specified an invalid argument", False),
        ("organization_not_verified", False),
        ("billing_plan_too_small", False),
        ("sk-proj-abcdef123456", False),
        ("x" * 65, False),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 422])
def test_codes_of_faults_in_the_request(code: object, kept: bool, status: int) -> None:
    """Callers act on such a code; it never tells of the operator's account."""
    fault = {"message": "m", "type": "invalid_request_error", "param": "stream", "code": code}

    error = provider_failure(status, {}, json.dumps({"error": fault}).encode())

    assert error.reason == "UPSTREAM_INVALID_REQUEST"
    assert error.facts == ({"providerCode": code} if kept else {})
    assert error.param == "stream"


@pytest.mark.parametrize("status", [401, 402, 403, 404, 413, 429, 500, 503])
def test_no_code_with_other_reasons(status: int) -> None:
    """They have codes of their own."""
    error = provider_failure(status, {}, b'{"error":{"message":"m","code":"some_code"}}')

    assert error.facts == {}


def test_an_unknown_model_is_the_models_fault() -> None:
    """Callers look for the field `model`, which few providers name."""
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
    """It says nothing of the channel, whose circuit breaker it must not open."""
    body = json.dumps({"error": {"message": message}}).encode()

    assert provider_failure(status, {}, body).is_of_request


def test_a_firewall_refuses_one_prompt() -> None:
    """It stands in front of the provider and answers with a page."""
    assert provider_failure(403, {}, b"\n<!DOCTYPE html><title>Blocked</title>").is_of_request
    assert not provider_failure(401, {}, b"<html>").is_of_request


@pytest.mark.parametrize("status", [401, 402, 403, 429])
def test_a_refusal_of_the_account_concerns_all_requests(status: int) -> None:
    """The breaker opens at once."""
    body = b'{"error":{"message":"Insufficient credits"}}'

    assert not provider_failure(status, {}, body).is_of_request
