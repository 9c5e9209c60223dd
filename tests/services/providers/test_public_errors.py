"""Messages, fields and codes of providers' errors that callers may see."""

from __future__ import annotations

import json

import pytest

from services.providers.failures import (
    MESSAGE_MAX,
    provider_failure,
    public_message,
)


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
def test_secrets_are_redacted(secret: str) -> None:
    """Keys, IDs of accounts and addresses, anywhere in a message."""
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
def test_a_message_is_one_printable_line(message: str, shown: str) -> None:
    """Names of models, and words like IDs, are kept."""
    assert public_message(message) == shown


def test_long_messages_are_cut() -> None:
    """A key that the cut would halve is left out."""
    assert len(public_message("word " * 1000)) == MESSAGE_MAX
    assert "sk-se" not in public_message("a" * 3990 + " sk-secret-key-0123")


def test_messages_about_the_operators_account_are_replaced() -> None:
    """Callers get the gateway's own message."""
    error = provider_failure(402, {}, b'{"error":{"message":"Team blue owes 7 dollars"}}')

    assert "blue" not in error.message


@pytest.mark.parametrize(
    ("param", "kept"), [("messages[0].content", True), ("a b", False), ("x" * 101, False)]
)
def test_a_field_is_named_only_in_the_form_of_a_path(param: str, kept: bool) -> None:
    """Other values of `param` are left out."""
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
        ("invalid_request_error", False),  # A general code.
        ("Client specified an invalid argument", False),
        ("organization_not_verified", False),
        ("billing_plan_too_small", False),
        ("sk-proj-abcdef123456", False),
        ("x" * 65, False),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 422])
def test_codes_of_faults_in_the_request(code: object, kept: bool, status: int) -> None:
    """Callers get it, unless it is general or concerns the operator's account."""
    fault = {"message": "m", "type": "invalid_request_error", "param": "stream", "code": code}

    error = provider_failure(status, {}, json.dumps({"error": fault}).encode())

    assert error.reason == "UPSTREAM_INVALID_REQUEST"
    assert error.facts == ({"providerCode": code} if kept else {})
    assert error.param == "stream"


@pytest.mark.parametrize("status", [401, 402, 403, 404, 413, 429, 500, 503])
def test_other_reasons_have_no_code_of_the_provider(status: int) -> None:
    """They have codes of the contract."""
    error = provider_failure(status, {}, b'{"error":{"message":"m","code":"some_code"}}')

    assert error.facts == {}
