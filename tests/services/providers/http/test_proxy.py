"""Forward proxies: which one, through a real one, and answers that are no tunnel."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.common.tls import UpstreamTls
from services.providers.http import HttpClient, HttpError, HttpErrorKind, Proxies, Proxy, Url
from tests.stand.certificates import Certificates
from tests.stand.forward_proxy import (
    ANY_HOST,
    TINYPROXY,
    ForwardProxy,
    running_forward_proxy,
)
from tests.stand.http_posts import send_post
from tests.stand.upstream import FakeUpstream, json_answer

ENV = {"HTTPS_PROXY": "http://secure:1", "HTTP_PROXY": "plain:2"}
needs_tinyproxy = pytest.mark.skipif(TINYPROXY is None, reason="there is no tinyproxy here")


@pytest.mark.parametrize(
    ("url", "env", "address"),
    [
        ("https://a.example", ENV, "secure:1"),
        ("http://a.example", ENV, "plain:2"),
        ("https://a.example", {"HTTP_PROXY": "plain:2"}, None),
        ("https://a.example", {**ENV, "https_proxy": "http://small"}, "small:3128"),
        ("https://a.example", {"HTTPS_PROXY": " "}, None),
        ("https://a.example", {}, None),
        *[
            (f"https://{host}", ENV, None)
            for host in ("localhost:1", "127.0.0.1", "127.9.9.9:1", "[::1]")
        ],
    ],
)
def test_the_scheme_decides_about_the_proxy(
    url: str, env: Mapping[str, str], address: str | None
) -> None:
    """Small letters come first, as in curl. This machine is reached without a proxy."""
    proxy = Proxies.of(env).to(Url.parse(url).origin)
    assert (proxy and proxy.address) == address


@pytest.mark.parametrize(
    ("excluded", "url", "direct"),
    [
        ("*", "https://a.example", True),
        ("a.example", "https://a.example", True),
        ("a.example", "https://b.a.example", True),
        ("a.example", "https://ba.example", False),
        (".a.example", "https://b.a.example", True),
        ("*.a.example", "https://b.a.example", True),
        ("A.Example", "https://a.EXAMPLE", True),
        ("x, a.example ,", "https://a.example", True),
        ("a.example:443", "https://a.example", True),
        ("a.example:8443", "https://a.example", False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3", "https://10.1.2.3:8443", True),
        ("10.1.2.3:443", "https://10.1.2.3:8443", False),
        ("fd00::/8", "https://[fd00::1]", True),
        ("[fd00::1]", "https://[fd00::1]", True),
        ("[fd00::1]:443", "https://[fd00::1]", True),
        ("10.0.0.0/8", "https://a.example", False),
        ("", "https://a.example", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(excluded: str, url: str, direct: bool) -> None:
    """With a port, an entry is about that port alone."""
    proxies = Proxies.of({**ENV, "NO_PROXY": excluded})
    assert (proxies.to(Url.parse(url).origin) is None) is direct


@pytest.mark.parametrize(
    "text", ["socks5://a:1", "https://a:1", "http://", "http://u:pass@word@:x", "http://a:99999"]
)
def test_an_unusable_proxy_is_named_without_its_password(text: str) -> None:
    """The variable is enough to find it."""
    with pytest.raises(ValueError, match=r"^HTTPS_PROXY: ") as refused:
        Proxies.of({"HTTPS_PROXY": text})
    assert "pass" not in str(refused.value).replace("PASSWORD", "")


def test_credentials_may_be_escaped() -> None:
    """As in every URL; without a password there is still a colon (RFC 7617)."""
    for text, pair in (("http://u%40x:p%2Fw@a", "dUB4OnAvdw=="), ("http://u@a", "dTo=")):
        assert Proxy.parse(text).fields == f"proxy-authorization: Basic {pair}\r\n"
    assert Proxy.parse("http://a").fields == ""


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[ForwardProxy]:
    """A running tinyproxy."""
    async with running_forward_proxy(tmp_path) as running:
        yield running


@asynccontextmanager
async def provider(tmp_path: Path) -> AsyncIterator[tuple[FakeUpstream, Url]]:
    """A provider with TLS, and its URL: it is no loopback address, and has its own authority."""
    certificates = Certificates(tmp_path, ANY_HOST)
    certificate, key = certificates.issue("provider")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with FakeUpstream(tls=context) as upstream:
        upstream.play([json_answer({"a": 1})])
        tls = UpstreamTls.of_files(certificates.ca, None, None)
        yield upstream, Url.parse(f"https://{ANY_HOST}:{upstream.port}/v1").with_tls(tls)


async def post(proxies: Proxies, url: Url, times: int = 1) -> list[tuple[int, bytes]]:
    """Post, and return statuses and bodies."""
    client = HttpClient(proxies=proxies)
    got = []
    try:
        for _ in range(times):
            response = await send_post(client, url, {"x-a": "b"}, b"{}")
            got.append((response.status, await response.read()))
            response.close()
    finally:
        await client.close()
    return got


@needs_tinyproxy
async def test_tls_goes_through_a_tunnel(tmp_path: Path, proxy: ForwardProxy) -> None:
    """One tunnel for two requests, of which the proxy sees nothing, to the server's own TLS."""
    async with provider(tmp_path) as (upstream, url):
        got = await post(Proxies.of({"HTTPS_PROXY": proxy.url}), url, 2)

    assert got == [(200, b'{"a": 1}')] * 2
    assert proxy.requests == [f"CONNECT {ANY_HOST}:{upstream.port}"]
    assert "proxy-authorization" not in upstream.requests[0].headers
    assert upstream.requests[0].path == "/v1"


@needs_tinyproxy
async def test_plain_text_is_forwarded(proxy: ForwardProxy) -> None:
    """The proxy gets the whole URL and its credentials, and keeps these."""
    async with FakeUpstream() as upstream:
        upstream.play([json_answer({"a": 1})])
        url = Url.parse(f"http://{ANY_HOST}:{upstream.port}/v1?a=b")
        got = await post(Proxies.of({"http_proxy": proxy.url}), url)

    assert got == [(200, b'{"a": 1}')]
    assert proxy.requests == [f"POST http://{ANY_HOST}:{upstream.port}/v1?a=b"]
    assert upstream.requests[0].path == "/v1?a=b"
    assert upstream.requests[0].headers["x-a"] == "b"
    assert "proxy-authorization" not in upstream.requests[0].headers


@needs_tinyproxy
@pytest.mark.parametrize(
    ("scheme", "pair"), [("http", ""), ("https", ""), ("https", "gateway:wrong@")]
)
async def test_a_proxy_that_refuses_the_credentials_is_named(
    proxy: ForwardProxy, scheme: str, pair: str
) -> None:
    """With its address and status; nothing was sent to the provider, and nothing is left."""
    address = f"127.0.0.1:{proxy.port}"
    proxies = Proxies.of({f"{scheme}_proxy": f"http://{pair}{address}"})
    with pytest.raises(HttpError, match=r"40[17]") as refused:
        await post(proxies, Url.parse(f"{scheme}://{ANY_HOST}:1/v1"))

    assert refused.value.kind is HttpErrorKind.PROXY


@needs_tinyproxy
async def test_a_server_that_the_proxy_cannot_reach_is_named(proxy: ForwardProxy) -> None:
    """The proxy's own status says so."""
    with pytest.raises(HttpError, match=f"proxy 127.0.0.1:{proxy.port}: .*50[0-9]") as refused:
        await post(Proxies.of({"https_proxy": proxy.url}), Url.parse(f"https://{ANY_HOST}:1/v1"))

    assert refused.value.kind is HttpErrorKind.PROXY


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "no answer to CONNECT"),
        (b"HTTP/1.1 403 Not\x07 on this list\r\n\r\n", "is '403 Not on this list'"),
        (b"220 smtp.example ESMTP\r\n\r\n", "is 'smtp.example ESMTP'"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 5000, "no answer to CONNECT"),
        (b"HTTP/1.1 200 OK\r\n\r\nnot a tunnel", "more than an answer"),
    ],
)
async def test_an_answer_that_is_no_tunnel_is_refused(answer: bytes, cause: str) -> None:
    """Names are left to the proxy to resolve; what it answers is bounded and printable."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(HttpError, match=cause):
            await post(
                Proxies.of({"https_proxy": f"http://127.0.0.1:{port}"}),
                Url.parse("https://provider.invalid/v1"),
            )

    assert seen == [b"CONNECT provider.invalid:443 HTTP/1.1\r\nhost: provider.invalid:443\r\n\r\n"]


async def test_an_unreachable_proxy_is_named() -> None:
    """The cause is the proxy, not the provider."""
    proxies = Proxies.of({"https_proxy": "http://127.0.0.1:1"})
    with pytest.raises(HttpError, match=r"through the proxy 127\.0\.0\.1:1: .*111") as refused:
        await post(proxies, Url.parse("https://provider.invalid/v1"))

    assert refused.value.kind is HttpErrorKind.UNREACHABLE
