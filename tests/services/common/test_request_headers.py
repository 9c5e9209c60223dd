from __future__ import annotations

import json
import re

import pytest
from multidict import CIMultiDict

from services.common.request_headers import (
    bearer_token,
    has_bearer_token,
    is_idempotency_key,
    new_request_id,
    request_id_or_new,
    session_id,
    unchecked_token,
)

NEW = re.compile(r"req-[0-9a-f]{32}")


def test_new_request_ids_differ() -> None:
    """All of them have one form, which is fit for logs."""
    made = {new_request_id() for _ in range(1000)}

    assert len(made) == 1000
    assert all(NEW.fullmatch(each) and request_id_or_new(each) == each for each in made)


@pytest.mark.parametrize("given", ["client-1.a_B", "x" * 64, "0", "-", "."])
def test_a_callers_request_id_is_kept(given: str) -> None:
    """1 to 64 letters, digits, `_`, `.` and `-`."""
    assert request_id_or_new(given) == given


@pytest.mark.parametrize(
    "given",
    [None, "", "a b", "a\nb", "a\n", "\r\n", "x" * 65, "ключ", "\udcff", "\x1b[31m", "a/b", "٣"],
)
def test_a_request_id_that_is_unfit_for_logs_is_replaced(given: str | None) -> None:
    """So is an absent one."""
    assert NEW.fullmatch(request_id_or_new(given))


@pytest.mark.parametrize(
    "authorization",
    ["Bearer k", "bearer k", "BEARER k", "bEaRer  k", "Bearer k ", "Bearer    k   "],
)
def test_a_bearer_token_may_have_spaces_around_it(authorization: str) -> None:
    """The scheme has no case."""
    assert bearer_token(authorization) == "k"
    assert has_bearer_token(authorization, "k")


@pytest.mark.parametrize("token", ["ключ", "\udcff", "\0", "%", "a,b", "'", "x" * 10_000])
def test_a_bearer_token_has_any_characters_but_spaces(token: str) -> None:
    """Whether it is a key or the token that is expected is another question."""
    assert bearer_token(f"Bearer {token}") == token
    assert not has_bearer_token(f"Bearer {token}", "k")


@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", "Bearer", "Bearer ", " Bearer k", "Bearer k x", "Bearer: k", "Bearerk", "k"),
        *("Bearer\tk", "Bearer \tk", "Bearer k\t", "Bearer k\n", "Bearer \xa0k", "bearer\u2003k"),
        *("Basic k", "Token k", "Bearer k, Bearer k", "\uff42earer k", "Bea\u0280er k"),
    ],
)
def test_another_header_has_no_bearer_token(authorization: str | None) -> None:
    """Among them two tokens, other schemes, and tabs and line ends, which no header carries."""
    assert bearer_token(authorization) is None
    assert not has_bearer_token(authorization, "k")


@pytest.mark.parametrize("text", ["k", " ", "a b", "~", "x" * 255, "{}", "%20"])
def test_an_idempotency_key_is_printable_ascii(text: str) -> None:
    """1 to 255 characters."""
    assert is_idempotency_key(text)


@pytest.mark.parametrize("text", ["", "x" * 256, "a\n", "a\tb", "\0", "\x7f", "é", "\udcff"])
def test_other_text_is_no_idempotency_key(text: str) -> None:
    """Too long, empty, or with other characters."""
    assert not is_idempotency_key(text)


@pytest.mark.parametrize("authorization", ["Bearer k", "bearer  k ", "Basic k", "k", " k"])
def test_an_unchecked_token_is_the_last_word(authorization: str) -> None:
    """Whatever the form of the header."""
    assert unchecked_token(authorization) == "k"
    assert unchecked_token("") == ""


CODE_USER = json.dumps({"device_id": "d", "account_uuid": "a", "session_id": "of-user"})


def test_the_first_name_of_a_session_counts() -> None:
    """Headers come before the end user's ID, and that before the cache key."""
    headers = CIMultiDict(
        {
            "X-Session-Id": "own",
            "X-Claude-Code-Session-Id": "claude",
            "Session-Id": "codex",
            "X-Session-Affinity": "opencode",
        }
    )
    for name, expected in [*headers.items()]:
        assert session_id(headers, CODE_USER, "cache-key") == expected
        del headers[name]

    assert session_id(headers, CODE_USER, "cache-key") == "of-user"
    assert session_id(headers, "user-17", "cache-key") == "cache-key"
    assert session_id(headers, "user-17") == ""


@pytest.mark.parametrize("given", ["", "x" * 256, "a\nb", "a\x00", "\x7f", "\udcff"])
def test_an_unfit_name_of_a_session_is_passed_over(given: str) -> None:
    """The next place counts; without another one there is no session."""
    user = json.dumps({"session_id": given})

    assert session_id({"x-session-id": given, "session-id": "next"}) == "next"
    assert session_id({"x-session-id": given}, user, given) == ""
    assert session_id({}, user, "k" * 255) == "k" * 255


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("user_0f3a_account__session_7c1b2a9e-1111-4222-8333-000000000000",) * 2,
        ('{"session_id": "s", "other": {"session_id": "t"}}', "s"),
        ('{"session_id": 7}', ""),
        ('{"session_id": ', ""),
        ('["session_id"]', ""),
        ("{" * 4000, ""),
        ('{"session_id": "s", "x": "' + "y" * 5000 + '"}', ""),
        ('{"session_id": "\udcff"}', ""),
    ],
)
def test_a_session_within_the_end_users_id(user: str, expected: str) -> None:
    """Claude Code's forms are read; any other text is no session, and no fault."""
    assert session_id({}, user) == expected.rpartition("_")[2]
