from __future__ import annotations

import re

import pytest

from services.common.request_headers import (
    bearer_token,
    has_bearer_token,
    is_idempotency_key,
    new_request_id,
    request_id_or_new,
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
