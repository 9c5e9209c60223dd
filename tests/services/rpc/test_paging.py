from __future__ import annotations

import base64
import json

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.paging import PAGE_BYTES_MAX, PAGE_SIZE_MAX, START, Page, Position, encipher

NAME = repr(("ListKeys", "acme"))


def page(token: str, *list_name: object) -> Page:
    """Return the page of a token."""
    return Page.of(1, token, *(list_name or ("ListKeys", "acme")))


def token_of(position: Position) -> str:
    """Return the token of the page after a position."""
    found = [position, position]
    _, token = page("").cut(found, (StringValue() for _ in found), lambda each: each)
    return token


@given(time=st.integers(-1, 2**62), name=st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_token_is_the_position_of_its_list(time: int, name: str) -> None:
    """Every position is found again, for the same list alone."""
    token = token_of((time, name[:512]))

    assert page(token).after == (time, name[:512])
    for other in (("ListKeys", "other"), ("ListKeys", ""), ("ListAccounts",)):
        assert refused(token, *other) == "page_token"


def test_tokens_are_opaque() -> None:
    """Neither the token nor its bytes show the position, and near positions differ everywhere."""
    tokens = [token_of((1_800_000_000_000 + n, "key-secret")) for n in range(9)]

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


@pytest.mark.parametrize(
    ("sizes", "pages"),
    [
        ([10] * 5, [2, 2, 1]),
        ([PAGE_BYTES_MAX // 2] * 3, [1, 1, 1]),
        ([1, PAGE_BYTES_MAX, 1, 1], [1, 1, 2]),
        ([2 * PAGE_BYTES_MAX, 2 * PAGE_BYTES_MAX], [1, 1]),
        ([], [0]),
    ],
)
def test_pages_end_before_they_are_too_large_for_stubs(sizes: list[int], pages: list[int]) -> None:
    """And no item is left out or repeated. An item that is too large has a page of its own."""
    items = [(number, "x" * size) for number, size in enumerate(sizes)]
    seen: list[int] = []
    token = ""
    while True:
        one = Page.of(2, token, "l")
        rest = [item for item in items if item[0] > one.after[0]][: one.limit]
        messages = (StringValue(value=text) for _, text in rest)
        shown, token = one.cut(rest, messages, lambda item: (item[0], ""))
        assert [message.value for message in shown] == [text for _, text in rest[: len(shown)]]
        seen.append(len(shown))
        if not token:
            break

    assert seen == pages
    assert not token


def refused(token: str, *list_name: object) -> str | None:
    """Return the field at fault."""
    with pytest.raises(Failure) as failure:
        page(token, *list_name)
    assert failure.value.reason == ErrorReason.INVALID_FIELD
    return failure.value.param
