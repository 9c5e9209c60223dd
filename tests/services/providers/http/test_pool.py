"""Connection pool: reuse and number of connections."""

from __future__ import annotations

import asyncio
import socket

import pytest

from services.providers.http import (
    HttpClient,
    HttpError,
    HttpErrorKind,
    HttpResponse,
    PostHead,
    Url,
)
from tests.stand.http_posts import send_post
from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    STALL,
    FakeUpstream,
    answer,
    chunk,
    head,
    json_answer,
)

OK = json_answer({})


async def post(client: HttpClient, upstream: FakeUpstream, timeout_s: float = 5) -> HttpResponse:
    """Send a request to the scripted server."""
    return await send_post(client, Url.parse(upstream.url), {}, b"{}", timeout_s=timeout_s)


async def call(client: HttpClient, upstream: FakeUpstream) -> bytes:
    """Send a request, and return the body of the response."""
    response = await post(client, upstream)
    body = b""
    while data := await response.read():
        body += data
    response.close()
    return body


async def test_calls_in_a_row_share_a_connection(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """It is kept after a complete response."""
    upstream.play([OK], [SSE_HEAD + chunk(b"a") + LAST_CHUNK], [answer(b"", 500)], [OK])

    for _ in range(4):
        await call(client, upstream)

    assert upstream.connections == 1


async def test_a_connection_is_reused_after_an_unread_complete_body(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """The body need not be read."""
    upstream.play([OK])

    for _ in range(3):
        (await post(client, upstream)).close()

    assert upstream.connections == 1


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(answer(b"ok", connection="close"), id="the server closes"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", id="HTTP/1.0"),
        pytest.param(answer(b"ok") + b"more", id="garbage behind"),
        pytest.param(answer(b"ok") + answer(b"evil"), id="a second response behind"),
    ],
)
async def test_a_connection_with_bytes_beyond_a_response_is_closed(
    wire: bytes, client: HttpClient, upstream: FakeUpstream
) -> None:
    """They are never read as the next response."""
    upstream.play([wire, STALL], [OK])

    assert await call(client, upstream) == b"ok"
    await upstream.requests[0].left.wait()
    assert await call(client, upstream) == b"{}"
    assert upstream.connections == 2


async def test_bytes_on_an_idle_connection_close_it(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """They belong to no request."""
    later = asyncio.Event()
    upstream.play([answer(b"ok"), later, answer(b"evil"), STALL], [OK])
    await call(client, upstream)

    later.set()

    await upstream.requests[0].left.wait()
    assert await call(client, upstream) == b"{}"


async def test_an_unfinished_response_closes_its_connection(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """The server sees the end at once. A second `close` changes nothing."""
    upstream.play([SSE_HEAD + chunk(b"a"), STALL], [OK])
    response = await post(client, upstream)

    response.close()
    response.close()

    await upstream.requests[0].left.wait()
    with pytest.raises(HttpError):
        await response.read()
    assert await call(client, upstream) == b"{}"


async def test_a_finished_response_may_end_later(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """The connection is kept if the end of the message follows soon."""
    finished, ended = asyncio.Event(), asyncio.Event()

    async def tell(_: object) -> None:
        ended.set()

    upstream.play([SSE_HEAD + chunk(b"[DONE]"), finished, LAST_CHUNK, tell], [OK])
    response = await post(client, upstream)
    assert await response.read() == b"[DONE]"

    response.finish()
    finished.set()
    await ended.wait()
    idle = client.pools[Url.parse(upstream.url).origin]._idle
    while not idle:  # noqa: ASYNC110 - nobody else needs to know
        await asyncio.sleep(0)

    assert await call(client, upstream) == b"{}"
    assert upstream.connections == 1


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param([chunk(b"more"), STALL], id="more data"),
        pytest.param([b"garbage\r\n", STALL], id="garbage"),
        pytest.param([STALL], id="nothing"),
    ],
)
async def test_a_finished_response_that_does_not_end(
    rest: list[bytes], client: HttpClient, upstream: FakeUpstream
) -> None:
    """The connection is closed if other bytes follow, or nothing."""
    finished = asyncio.Event()
    upstream.play([SSE_HEAD + chunk(b"[DONE]"), finished, *rest], [OK])
    response = await post(client, upstream)
    await response.read()

    response.finish()
    finished.set()

    await upstream.requests[0].left.wait()
    assert await call(client, upstream) == b"{}"
    assert upstream.connections == 2


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_a_stale_connection_is_replaced(
    end: bytes, client: HttpClient, upstream: FakeUpstream
) -> None:
    """A request that a closed connection has not delivered is sent once more, on a new one."""
    upstream.play([OK], [end], [answer(b"again")])
    await call(client, upstream)

    assert await call(client, upstream) == b"again"
    assert [request.connection for request in upstream.requests] == [0, 0, 1]


async def test_a_request_counts_as_sent_on_an_open_connection_alone(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """A connection that was closed while it was idle is replaced before anything is sent."""
    upstream.play([OK, CUT], [answer(b"again")])
    await call(client, upstream)
    (idle,) = client.pools[Url.parse(upstream.url).origin]._idle
    while not idle._transport.is_closing():  # noqa: ASYNC110 - the loop closes it
        await asyncio.sleep(0)
    sent: list[int] = []

    post_head = PostHead(Url.parse(upstream.url), {})
    response = await client.pools[post_head.origin].send(
        post_head, b"{}", connect_timeout_s=5, on_sent=lambda: sent.append(1)
    )

    assert await response.read() == b"again"
    assert len(sent) == 1
    response.close()


async def test_a_stale_connection_without_a_request_is_replaced(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """`connect` has kept it, and it was closed before its first request."""
    url = Url.parse(upstream.url)
    await client.connect(url, timeout_s=5)
    (idle,) = client.pools[url.origin]._idle
    idle._transport.abort()
    upstream.play([answer(b"first")])

    assert await call(client, upstream) == b"first"


async def test_a_new_connection_is_not_replaced(client: HttpClient, upstream: FakeUpstream) -> None:
    """The request is not sent a second time."""
    upstream.play([OK], [CUT])
    await call(client, upstream)

    with pytest.raises(HttpError) as failed:
        await call(client, upstream)

    assert failed.value.kind is HttpErrorKind.DISCONNECTED
    assert [request.connection for request in upstream.requests] == [0, 0, 1]


async def test_a_request_with_a_partial_response_is_not_sent_again(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """The server may have processed it."""
    upstream.play([OK], [b"H", CUT], [OK])
    await call(client, upstream)

    with pytest.raises(HttpError) as failed:
        await call(client, upstream)

    assert failed.value.kind is HttpErrorKind.DISCONNECTED
    assert len(upstream.requests) == 2


async def test_a_request_closed_after_a_while_is_not_sent_again(
    client: HttpClient, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have begun to process it."""
    monkeypatch.setattr("services.providers.http.upstream_connection.STALE_WINDOW_S", 0.0)
    upstream.play([OK], [CUT], [OK])
    await call(client, upstream)

    with pytest.raises(HttpError):
        await call(client, upstream)

    assert len(upstream.requests) == 2


async def test_idle_connections_expire(upstream: FakeUpstream) -> None:
    """An idle connection is closed after its timeout."""
    client = HttpClient(idle_timeout_s=0.02)
    upstream.play([OK])

    await asyncio.gather(call(client, upstream), call(client, upstream))

    for request in upstream.requests:
        await request.left.wait()
    await client.close()


async def test_calls_over_the_limit_wait_for_a_connection(upstream: FakeUpstream) -> None:
    """First come, first served. They fail after their timeout."""
    client = HttpClient(limit_per_host=1)
    go = asyncio.Event()
    upstream.play([head(content_length="2"), go, b"ok"], [OK])
    first = await post(client, upstream)

    with pytest.raises(HttpError) as failed:
        await post(client, upstream, timeout_s=0.01)
    assert failed.value.kind is HttpErrorKind.TIMEOUT

    waiting = asyncio.create_task(call(client, upstream))
    go.set()
    assert await first.read() == b"ok"
    first.close()

    assert await waiting == b"{}"
    assert upstream.connections == 1
    await client.close()


@pytest.mark.parametrize("phase", ["queue", "connect", "head", "body"])
async def test_a_cancelled_call_closes_its_connection_and_frees_its_slot(
    phase: str, upstream: FakeUpstream
) -> None:
    """In every phase of a call."""
    client = HttpClient(limit_per_host=1)
    url = Url.parse(upstream.url)
    upstream.play([SSE_HEAD + chunk(b"a"), STALL] if phase == "body" else [STALL])
    holder = None
    if phase == "queue":
        upstream._scripts.clear()
        upstream.play([OK])
        holder = await post(client, upstream)
    unaccepting = socket.socket()
    if phase == "connect":
        url, filler = await _that_accepts_nothing(unaccepting)

    async def one_call() -> None:
        response = await send_post(client, url, {}, b"{}", timeout_s=60)
        try:
            while await response.read():
                pass
        finally:
            response.close()

    calling = asyncio.create_task(one_call())
    if phase in {"head", "body"}:
        request = await upstream.request()
    for _ in range(50):
        await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling

    if phase in {"head", "body"}:
        await request.left.wait()
    if phase == "connect":
        filler.close()
    if holder is not None:
        holder.close()
    unaccepting.close()
    upstream._scripts.clear()
    upstream.play([OK])
    assert await call(client, upstream) == b"{}"
    await client.close()


async def _that_accepts_nothing(listener: socket.socket) -> tuple[Url, socket.socket]:
    """Return a port whose queue of connections is full, and the connection that fills it."""
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    filler = socket.socket()
    filler.setblocking(False)
    await asyncio.get_running_loop().sock_connect(filler, listener.getsockname())
    return Url.parse(f"http://127.0.0.1:{listener.getsockname()[1]}/"), filler


async def test_connecting_has_a_timeout(client: HttpClient) -> None:
    """The error is that of a timeout."""
    with socket.socket() as listener:
        url, filler = await _that_accepts_nothing(listener)
        with filler, pytest.raises(HttpError) as failed:
            await send_post(client, url, {}, b"", timeout_s=0.05)

    assert failed.value.kind is HttpErrorKind.TIMEOUT


async def test_a_refused_connection_is_unreachable(client: HttpClient) -> None:
    """It is not that of a disconnected one."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = Url.parse(f"http://127.0.0.1:{unused.getsockname()[1]}/")
        with pytest.raises(HttpError) as failed:
            await send_post(client, url, {}, b"")

    assert failed.value.kind is HttpErrorKind.UNREACHABLE


async def test_a_host_without_an_address_is_a_dns_error(client: HttpClient) -> None:
    """It is not that of an address without a server."""
    with pytest.raises(HttpError) as failed:
        await send_post(client, Url.parse("http://nowhere.invalid/"), {}, b"", timeout_s=30)

    assert failed.value.kind is HttpErrorKind.DNS


async def test_all_addresses_of_a_host_are_tried(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """The second one, where the first does not answer."""
    upstream.play([OK])
    loop = asyncio.get_running_loop()
    url = Url.parse(upstream.url.replace("127.0.0.1", "localhost"))
    families = {info[0] for info in await loop.getaddrinfo("localhost", url.origin.port)}

    response = await send_post(client, url, {}, b"{}")

    assert response.status == 200
    assert socket.AF_INET in families
    response.close()


async def test_a_closed_client_has_no_connections(upstream: FakeUpstream) -> None:
    """It makes none either, and open responses fail."""
    client = HttpClient()
    upstream.play([OK], [SSE_HEAD, STALL])
    idle = await post(client, upstream)
    response = await post(client, upstream)
    idle.close()

    await client.close()

    with pytest.raises(HttpError) as failed:
        await response.read()
    assert failed.value.kind is HttpErrorKind.DISCONNECTED
    response.close()
    with pytest.raises(HttpError) as failed:
        await post(client, upstream)
    assert failed.value.kind is HttpErrorKind.UNREACHABLE
