"""URLs of PostgreSQL databases as providers hand them out."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from services.storage.base import StateError
from services.storage.postgres import PostgresDatabase
from services.storage.postgres_url import parse_url

LIBPQ = (
    "channel_binding=prefer&connect_timeout=3&keepalives=1&keepalives_idle=30"
    "&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=1000&gssencmode=disable"
    "&fallback_application_name=pomogator&client_encoding=utf8&sslcompression=0&sslsni=1"
    "&load_balance_hosts=disable&options=-c%20statement_timeout%3D4s"
)


async def test_parameters_of_libpq_are_accepted(postgres_url: str) -> None:
    """Those with a meaning have it, the others are left out, and the server is reached."""
    url = f"{postgres_url}&{LIBPQ}"
    assert parse_url(url).connect_timeout_s == 3

    database = await PostgresDatabase.open(url)

    async with database._pool.connection(5) as connection:
        assert await connection.fetchval("SHOW application_name") == "pomogator"
        assert await connection.fetchval("SHOW statement_timeout") == "4s"
    await database.close()


async def test_an_unknown_parameter_is_named(postgres_url: str) -> None:
    """A parameter of another program is refused by name, without the rest of the URL."""
    with pytest.raises(StateError, match='parameter "connection_limit"'):
        await PostgresDatabase.open(f"{postgres_url}&connection_limit=5")


def test_demands_that_are_not_met_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A parameter that asks for more security than the driver has is named in a warning."""
    parse_url("postgresql://h/db?channel_binding=require&sslmode=require&gssencmode=prefer")

    (record,) = caplog.records
    assert record.message == "database_parameter.ignored"
    assert record.__dict__["parameter"] == "channel_binding=require"


@pytest.mark.parametrize(
    ("text", "hosts", "target"),
    [
        ("postgresql://u:p@h/db", [("h", 5432)], None),
        ("postgresql://u:p@s@h:1/db", [("h", 1)], None),
        ("postgresql://a:1,[::1]:2,c/db", [("a", 1), ("::1", 2), ("c", 5432)], "read-write"),
        ("postgresql:///db?host=a,b&port=1,2", [("a", 1), ("b", 2)], "read-write"),
        ("postgresql:///db?host=/run/x&port=7", [("/run/x", 7)], None),
        ("postgresql://%2Frun%2Fx/db", [("/run/x", 5432)], None),
        ("postgresql://a,b/db?target_session_attrs=any", [("a", 5432), ("b", 5432)], "any"),
        ("postgresql:///db", [], None),
    ],
)
def test_hosts(text: str, hosts: list[tuple[str, int]], target: str | None) -> None:
    """Several hosts are tried in turn, and only those that accept writes fit."""
    url = parse_url(text)

    assert (list(url.hosts), url.target) == (hosts, target)


def test_system_certificates_verify_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`sslrootcert=system` means the certificates of the machine, and `verify-full`."""
    file = tmp_path / "ca.crt"
    file.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    query = parse_qs(urlsplit(parse_url("postgresql://h/db?sslrootcert=system").dsn).query)

    assert query == {"sslrootcert": [str(file)], "sslmode": ["verify-full"]}
