"""Addresses and heads of requests."""

from __future__ import annotations

import pytest

from services.common.header_names import RESERVED_HEADERS
from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.request import Origin, PostHead, Url


@pytest.mark.parametrize(
    ("text", "origin", "authority", "target"),
    [
        ("http://a.test", Origin("a.test", 80, False), "a.test", "/chat"),
        ("https://A.test/v1/", Origin("a.test", 443, True), "a.test", "/v1/chat"),
        ("https://a.test:443/v1", Origin("a.test", 443, True), "a.test", "/v1/chat"),
        ("http://a.test:8080/v1", Origin("a.test", 8080, False), "a.test:8080", "/v1/chat"),
        ("http://[::1]:80/v1", Origin("::1", 80, False), "[::1]", "/v1/chat"),
        ("http://[::1]:81/v1", Origin("::1", 81, False), "[::1]:81", "/v1/chat"),
        ("https://a.test/x?v=1&w=2", Origin("a.test", 443, True), "a.test", "/x/chat?v=1&w=2"),
        (
            "https://пример.test/ё%20",
            Origin("xn--e1afmkfd.test", 443, True),
            "xn--e1afmkfd.test",
            "/%D1%91%20/chat",
        ),
    ],
)
def test_reads_addresses(text: str, origin: Origin, authority: str, target: str) -> None:
    """Host, port and path are understood, and a path is added before the query."""
    url = Url.parse(text).join("/chat")

    assert (url.origin, url.authority, url.target) == (origin, authority, target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.test/v1",
        "ftp://a.test",
        "file:///etc/passwd",
        "http://",
        "http:///v1",
        "http://user:password@a.test",
        "http://a.test\\@b.test",
        "http://a.test/#b",
        "http://a.test#",
        "http://a.test /v1",
        "http://a.test/v1\r\nx: y",
        "http://a\ttest",
        "http://a.test:99999",
        "http://a.test:b",
        "http://[::1",
        "http://a..test",
    ],
)
def test_refuses_ambiguous_addresses(text: str) -> None:
    """An address that two parsers could read differently is refused."""
    with pytest.raises(ValueError, match=r".+"):
        Url.parse(text)


def test_writes_a_head() -> None:
    """The head has the host and the headers as given."""
    url = Url.parse("http://a.test:81/v1?x=1")

    assert (
        PostHead(url, {"authorization": "Bearer k", "x-title": "Помогатор"}).text
        == (
            "POST /v1?x=1 HTTP/1.1\r\nhost: a.test:81\r\nauthorization: Bearer k\r\n"
            "x-title: Помогатор\r\n"
        ).encode()
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "secret\r\ny: z"),
        ("x", "secret\n"),
        ("x", "secret\r"),
        ("x", "secret\0"),
        ("x", "secret\x7f"),
        ("x", "secret\u2028"),
        ("x y", "secret"),
        ("x:", "secret"),
        ("", "secret"),
        ("x\n", "secret"),
        ("ключ", "secret"),
        *((name.title(), "secret") for name in sorted(RESERVED_HEADERS)),
    ],
)
def test_refuses_headers_that_reach_further(name: str, value: str) -> None:
    """A header cannot end the head, begin another, or steer the connection."""
    with pytest.raises(HttpError) as refused:
        PostHead(Url.parse("http://a.test"), {name: value})

    assert refused.value.kind is HttpErrorKind.BAD_REQUEST
    assert "secret" not in str(refused.value)
