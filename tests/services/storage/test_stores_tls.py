"""TLS to PostgreSQL and Redis, with verified certificates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import trustme

from services.clock import SystemClock
from services.storage.base import StateError
from services.storage.counters import LocalCounters
from services.storage.postgres import PostgresDatabase
from services.storage.redis import RedisCounters
from tests.services.storage.transactions import count, put
from tests.stand.tls_proxy import SSL_REQUEST, tls_proxy
from tests.stand.valkey import running_valkey


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """TLS context of a server at 127.0.0.1, with a certificate of the authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> Path:
    """File with the authority's certificate."""
    path = tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
async def database_port(tls: ssl.SSLContext, postgres_url: str) -> AsyncIterator[int]:
    """Port of PostgreSQL that accepts TLS only."""
    (folder,) = parse_qs(urlsplit(postgres_url).query)["host"]
    async with tls_proxy(
        lambda: asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432"), tls, asked=SSL_REQUEST
    ) as port:
        yield port


def encrypted(port: int, postgres_url: str, **query: str) -> str:
    """Return the URL of the database at the port with TLS."""
    (schema,) = parse_qs(urlsplit(postgres_url).query)["search_path"]
    return f"postgresql://postgres:@127.0.0.1:{port}/postgres?" + urlencode(
        {"search_path": schema, **query}
    )


async def test_a_database_with_a_trusted_certificate_is_opened(
    database_port: int, postgres_url: str, trusted: Path
) -> None:
    """`sslmode=verify-full` works."""
    url = encrypted(database_port, postgres_url, sslmode="verify-full", sslrootcert=str(trusted))
    database = await PostgresDatabase.open(url)
    before = await database.read(count)

    await database.write(put, "encrypted")

    assert await database.read(count) == before + 1
    await database.close()


async def test_a_database_without_a_trusted_certificate_is_refused(
    database_port: int, postgres_url: str, tmp_path: Path
) -> None:
    """An untrusted certificate, or plain text to a TLS port: the database is not opened."""
    other = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(other)
    for query, reason in (
        ({"sslmode": "verify-full", "sslrootcert": str(other)}, "tls: certificate verify failed: "),
        ({"sslmode": "disable"}, "the server closed the connection"),
    ):
        with pytest.raises(StateError, match=rf"^state\.database_url: 127\.0\.0\.1:\d+: {reason}"):
            await PostgresDatabase.open(encrypted(database_port, postgres_url, **query))


async def test_a_database_that_does_not_speak_tls_is_refused() -> None:
    """Where the URL demands it, the reason says so, and no password is sent."""
    received = asyncio.get_running_loop().create_future()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readexactly(len(SSL_REQUEST))
        writer.write(b"N")
        received.set_result(asked + await reader.read())
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"postgresql://u:word@127.0.0.1:{port}/d?sslmode=require"
        with pytest.raises(StateError, match="the server does not speak TLS, which sslmode"):
            await PostgresDatabase.open(url)
        assert await received == SSL_REQUEST


async def test_counters_need_a_trusted_certificate(tls: ssl.SSLContext, trusted: Path) -> None:
    """`rediss://` connects to a trusted server only."""
    with running_valkey() as valkey:
        local = LocalCounters(SystemClock())
        async with tls_proxy(
            lambda: asyncio.open_connection("127.0.0.1", valkey.port), tls
        ) as port:
            url = f"rediss://127.0.0.1:{port}"
            async with RedisCounters(f"{url}?ssl_ca_certs={trusted}", local) as counters:
                assert counters.shared
            async with RedisCounters(url, local) as counters:
                assert not counters.shared
                assert counters.client.failure.startswith("tls: certificate verify failed: ")
                assert counters.client.failure_is_permanent
