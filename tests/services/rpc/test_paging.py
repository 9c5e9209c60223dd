from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.paging import PAGE_SIZE_MAX, START, Page, encipher

NAME = repr(("ListKeys", "acme"))


def page(token: str, *list_name: object) -> Page:
    """Return the page of a token."""
    return Page.of(1, token, *(list_name or ("ListKeys", "acme")))


@given(time=st.integers(-1, 2**62), name=st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_token_is_the_position_of_its_list(time: int, name: str) -> None:
    """Every position is found again, for the same list alone."""
    token = page("").next_token([1, 2], (time, name[:512]))

    assert page(token).after == (time, name[:512])
    for other in (("ListKeys", "other"), ("ListKeys", ""), ("ListAccounts",)):
        assert refused(token, *other) == "page_token"


def test_tokens_are_opaque() -> None:
    """Neither the token nor its bytes show the position, and near positions differ everywhere."""
    tokens = [page("").next_token([1, 2], (1_800_000_000_000 + n, "key-secret")) for n in range(9)]

    for token in tokens:
        data = base64.urlsafe_b64decode(token + "==")
        assert b"key-secret" not in data
        assert b"1800" not in data
        assert token == token.strip("=")
    assert len({token[:6] for token in tokens}) == 9


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "%%%",
        "ключ",
        "\ud800",
        base64.urlsafe_b64encode(json.dumps([0, "a"]).encode()).decode(),
        encipher(b"", NAME),
        encipher(b"{}", NAME),
        encipher(b'[9223372036854775808,""]', NAME),
        encipher(b'[-2,""]', NAME),
        encipher(b'[0,"\\u0000"]', NAME),
        encipher(b'[0,"a"]', NAME)[:-1],
        encipher(b'[0,"a"]', NAME) + "AAAA",
    ],
)
def test_other_tokens_are_refused(token: str) -> None:
    """Damaged and forged ones, and positions that the databases cannot store."""
    assert refused(token) == "page_token"


def test_page_sizes() -> None:
    """0 is the default, a size above the maximum is the maximum, a negative one is refused."""
    assert [Page.of(size, "", "l").size for size in (0, 1, 1000, 1001, 2**31 - 1)] == [
        100, 1, 1000, PAGE_SIZE_MAX, PAGE_SIZE_MAX,
    ]  # fmt: skip
    assert Page.of(5, "", "l").after == START
    with pytest.raises(Failure, match="page_size"):
        Page.of(-1, "", "l")


def refused(token: str, *list_name: object) -> str | None:
    """Return the field at fault."""
    with pytest.raises(Failure) as failure:
        page(token, *list_name)
    assert failure.value.reason == ErrorReason.INVALID_FIELD
    return failure.value.param
