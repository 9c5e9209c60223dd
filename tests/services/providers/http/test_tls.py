"""TLS: verification of the server and of the end of a body."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from services.common.tls import UpstreamTls, upstream_context
from services.providers.http import HttpClient, HttpError, HttpErrorKind, Url
from tests.stand.certificates import Certificates
from tests.stand.http_posts import send_post
from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    SSE_HEAD,
    SSE_HEAD_UNTIL_CLOSE,
    FakeUpstream,
    UpstreamConnection,
    chunk,
    json_answer,
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority of our own."""
    return trustme.CA()


@pytest.fixture
def client_tls(authority: trustme.CA, tmp_path: Path) -> ssl.SSLContext:
    """A context that trusts only this authority."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return upstream_context(path)


def server_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """How a server with this certificate presents itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_a_valid_certificate_is_accepted(
    authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    """A certificate of a trusted authority for that host is accepted, and asked for by name."""
    names: list[str] = []
    context = server_tls(authority.issue_cert("localhost"))
    context.sni_callback = lambda _, name, __: names.append(name)
    async with FakeUpstream(tls=context) as upstream:
        upstream.play([json_answer({"a": 1})])
        client = HttpClient(ssl_context=client_tls)
        url = Url.parse(upstream.url.replace("127.0.0.1", "localhost"))
        for _ in range(2):
            response = await send_post(client, url, {}, b"{}" * 100_000)
            assert await response.read() == b'{"a": 1}'
            response.close()
        await client.close()

    assert names == ["localhost"]
    assert upstream.connections == 1
    assert [len(request.body) for request in upstream.requests] == [200_000, 200_000]


def _expired(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(hours=1))


@pytest.mark.parametrize(
    "certificate",
    [
        pytest.param(lambda ca: ca.issue_cert("elsewhere.test"), id="another host"),
        pytest.param(_expired, id="expired"),
        pytest.param(lambda _: trustme.CA().issue_cert("127.0.0.1"), id="another authority"),
    ],
)
async def test_an_invalid_certificate_is_refused(
    certificate: Callable[[trustme.CA], trustme.LeafCert],
    authority: trustme.CA,
    client_tls: ssl.SSLContext,
) -> None:
    """No request is sent to a server whose certificate is not valid for the host."""
    async with FakeUpstream(tls=server_tls(certificate(authority))) as upstream:
        client = HttpClient(ssl_context=client_tls)
        with pytest.raises(HttpError) as failed:
            await send_post(client, Url.parse(upstream.url), {"x": "secret"}, b"secret")
        await client.close()

    assert failed.value.kind is HttpErrorKind.TLS
    assert upstream.requests == []


async def test_the_system_decides_by_default(authority: trustme.CA) -> None:
    """Without a file of authorities, only the system's are trusted."""
    certificate = authority.issue_cert("127.0.0.1")
    async with FakeUpstream(tls=server_tls(certificate)) as upstream:
        client = HttpClient()
        with pytest.raises(HttpError) as failed:
            await send_post(client, Url.parse(upstream.url), {}, b"")
        await client.close()

    assert failed.value.kind is HttpErrorKind.TLS


async def test_is_never_downgraded(client_tls: ssl.SSLContext) -> None:
    """A server that does not speak TLS is not spoken to."""
    async with FakeUpstream() as upstream:
        upstream.play([json_answer({})])
        client = HttpClient(ssl_context=client_tls)
        url = Url.parse(upstream.url.replace("http:", "https:"))
        with pytest.raises(HttpError) as failed:
            await send_post(client, url, {}, b"", timeout_s=0.2)
        await client.close()

    assert failed.value.kind in {HttpErrorKind.TLS, HttpErrorKind.TIMEOUT}
    assert upstream.requests == []


async def test_a_closure_must_be_announced(
    authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    """A body that lasts until the connection ends cannot be cut by somebody in between."""
    async with FakeUpstream(tls=server_tls(authority.issue_cert("127.0.0.1"))) as upstream:
        upstream.play([SSE_HEAD_UNTIL_CLOSE + b"hel", CUT])
        client = HttpClient(ssl_context=client_tls)
        response = await send_post(client, Url.parse(upstream.url), {}, b"")
        assert await response.read() == b"hel"
        with pytest.raises(HttpError) as failed:
            await response.read()
        response.close()
        await client.close()

    assert failed.value.kind is HttpErrorKind.DISCONNECTED


async def test_an_announced_closure_is_an_end(
    authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    """A body that lasts until the connection ends is complete when the server says so."""

    async def close(line: UpstreamConnection) -> None:
        line.writer.close()
        await line.writer.wait_closed()

    async with FakeUpstream(tls=server_tls(authority.issue_cert("127.0.0.1"))) as upstream:
        upstream.play([SSE_HEAD_UNTIL_CLOSE + b"hello", close, CUT])
        client = HttpClient(ssl_context=client_tls)
        response = await send_post(client, Url.parse(upstream.url), {}, b"")
        assert await response.read() == b"hello"
        assert await response.read() == b""
        response.close()
        await client.close()


async def test_cancelled_at_any_moment(authority: trustme.CA, client_tls: ssl.SSLContext) -> None:
    """A call may be cancelled in any turn of the loop: its only connection is free again."""
    async with FakeUpstream(tls=server_tls(authority.issue_cert("127.0.0.1"))) as upstream:
        upstream.play([SSE_HEAD, chunk(b"a"), chunk(b"b") + LAST_CHUNK])
        client = HttpClient(ssl_context=client_tls, limit_per_host=1)

        async def call() -> None:
            response = await send_post(client, Url.parse(upstream.url), {}, b"", timeout_s=30)
            try:
                while await response.read():
                    pass
            finally:
                response.close()

        turns, finished = 0, False
        while not finished:
            calling = asyncio.create_task(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = calling.done()
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            turns = turns + 1 if turns < 40 else turns * 2

        await call()
        await client.close()


async def test_an_authority_unknown_to_the_system_is_refused(authority: trustme.CA) -> None:
    """The system's authorities do not include the test's, so the server is refused."""
    async with FakeUpstream(tls=server_tls(authority.issue_cert("127.0.0.1"))) as upstream:
        client = HttpClient()
        with pytest.raises(HttpError) as refused:
            await send_post(client, Url.parse(upstream.url), {}, b"{}")
        await client.close()

    assert refused.value.kind is HttpErrorKind.TLS
    assert not upstream.requests


async def test_an_origin_may_have_certificates_of_its_own(tmp_path: Path) -> None:
    """A server that asks for a certificate gets it; without it, or the CA, it is not reached."""
    certificates = Certificates(tmp_path, "127.0.0.1")
    certificate, key = certificates.issue("server")
    ours = certificates.issue("client", None, "gateway.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    async with FakeUpstream(tls=context) as upstream:
        upstream.play([json_answer({})])
        client = HttpClient()
        url = Url.parse(upstream.url)
        for ca, pair, kinds in (
            (certificates.ca, ours, None),
            (certificates.ca, (None, None), {HttpErrorKind.TLS, HttpErrorKind.DISCONNECTED}),
            (None, ours, {HttpErrorKind.TLS}),
        ):
            tls = UpstreamTls.of_files(ca, *pair)
            try:
                response = await send_post(client, url.with_tls(tls), {}, b"")
            except HttpError as error:
                assert kinds is not None
                assert error.kind in kinds  # noqa: PT017 - with or without an error
            else:
                assert kinds is None
                assert response.status == 200
                response.close()
        await client.close()

    assert len(upstream.requests) == 1


@pytest.mark.parametrize("own", [False, True])
def test_cannot_be_weakened(own: bool, tmp_path: Path) -> None:
    """Certificates and names are always checked, and old versions are not spoken."""
    context = upstream_context(Certificates(tmp_path).ca if own else None)

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
