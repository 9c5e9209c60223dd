"""URLs of PostgreSQL databases as providers hand them out."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from services.storage.base import StateError
from services.storage.postgres import PostgresDatabase
from services.storage.postgres_connector import PostgresConnector
from services.storage.postgres_parameters import UrlError
from services.storage.postgres_url import parse_url
from tests.stand.ports import free_ports

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
    PostgresConnector("postgresql://h/db?channel_binding=require&sslmode=require&gssencmode=prefer")

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h/d?target_session_attrs=master", "target_session_attrs: must be any or primary or "),
        ("h/d?target_session_attrs=standby", "target_session_attrs: must be any or primary or "),
        ("h/d?sslmode=on", "sslmode: must be disable or allow or prefer or require or verify-ca "),
        ("h/d?sslmode=verify_full", "or verify-full, not 'verify_full'"),
        ("h/d?ssl_min_protocol_version=1.2", "ssl_min_protocol_version: must be TLSv1 or "),
        (
            "h/d?sslmode=verify-full",
            "sslmode: verify-full needs sslrootcert=FILE or sslrootcert=sy",
        ),
        ("h/d?sslnegotiation=direct", "sslnegotiation: direct needs sslmode=require or "),
        ("h/d?connect_timeout=soon", "connect_timeout: must be a number of seconds, 0 or more"),
        ("h/d?connect_timeout=inf", "connect_timeout: must be a number of seconds, 0 or more"),
        ("h:sesame/d", "port: must be a whole number from 1 to 65535"),
        ("h:65536/d", "port: must be a whole number from 1 to 65535"),
        ("h:0/d", "port: must be a whole number from 1 to 65535"),
        ("h/d?port=²", "port: must be a whole number from 1 to 65535"),
        ("a,b/d?port=1,2,3", "port: there are 3 ports for 2 hosts"),
        ("[::1/d", "host: an IPv6 address is written [::1]"),
        ("h/d?sslrootcert=/nowhere/ca.pem", "sslrootcert: /nowhere/ca.pem: No such file"),
        ("h/d?sslkey=/nowhere/key.pem", "sslkey: /nowhere/key.pem: No such file"),
        (f"h/d?sslrootcert={__file__}", ": is no certificate in PEM"),
        ("h/d?sslmode", "must be postgresql://…, parameters NAME=VALUE"),
        # What follows the character is neither printed nor taken for a host.
        ("u:se/sesame@h/d", "in a password, / ? # and % are written %2F %3F %23 and %25"),
        ("u:se?sesame@h/d", "in a password, / ? # and % are written %2F %3F %23 and %25"),
        ("u:se#sesame@h/d", "in a password, / ? # and % are written %2F %3F %23 and %25"),
    ],
)
def test_a_value_that_is_not_allowed_is_told_with_its_parameter(text: str, message: str) -> None:
    """The message has the values that are allowed, and no part of a password."""
    with pytest.raises(UrlError) as refused:
        parse_url(f"postgresql://{text}")

    assert message in str(refused.value)
    assert "sesame" not in str(refused.value)


def test_files_of_a_connection_in_plain_text_are_not_read() -> None:
    """They have no effect."""
    parse_url("postgresql://h/d?sslmode=disable&sslrootcert=/nowhere/ca.pem")


async def test_each_of_several_hosts_has_its_reason() -> None:
    """The error of a start has all addresses in the order of the attempts."""
    first, second = free_ports(2)
    url = f"postgresql://u:word@127.0.0.1:{first},host.invalid:5,127.0.0.1:{second}/d"

    with pytest.raises(StateError) as refused:
        await PostgresDatabase.open(url)

    assert str(refused.value) == (
        f"state.database_url: 127.0.0.1:{first}: Connection refused; "
        f"host.invalid:5: Name or service not known; 127.0.0.1:{second}: Connection refused"
    )


async def test_a_host_that_accepts_no_writes_is_named(postgres_url: str) -> None:
    """Beside the one that does not answer."""
    (folder,) = parse_qs(urlsplit(postgres_url).query)["host"]
    (port,) = free_ports(1)
    hosts = f"127.0.0.1:{port},{folder}"
    url = f"postgresql://postgres@/postgres?host={hosts}&default_transaction_read_only=on"

    with pytest.raises(StateError) as refused:
        await PostgresDatabase.open(url)

    assert f"127.0.0.1:{port}: Connection refused; {folder}: accepts no writes" in str(
        refused.value
    )
