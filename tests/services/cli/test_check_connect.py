"""`pomogator check --connect`: a connection to every channel, over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from services.cli import main
from services.storage.call_schema import CALL_LOG
from services.storage.postgres import PostgresDatabase
from tests.services.cli.conftest import Shell
from tests.stand.certificates import Certificates
from tests.stand.forward_proxy import ANY_HOST, TINYPROXY, running_forward_proxy
from tests.stand.pgbouncer import PGBOUNCER, own_database, running_pgbouncer
from tests.stand.ports import free_ports
from tests.stand.upstream import FakeUpstream
from tests.stand.valkey import running_valkey

CHANNEL = """
[[channels]]
name = "{name}"
dialect = "openai"
base_url = "{url}"
{more}
[channels.models]
"{name}/m" = "m"
"""


async def check(shell: Shell, code: int, **env: str) -> str:
    """Run the command in another thread. Returns what it printed, on either output."""
    named = {"POMOGATOR_CONFIG": str(shell.config), "POMOGATOR_STATE": str(shell.state)}
    assert await asyncio.to_thread(main, ("check", "--connect"), {**named, **env}) == code
    return shell.printed()


def server_tls(certificates: Certificates) -> ssl.SSLContext:
    """TLS of a server with a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.issue("server"))
    return context


async def test_each_channel_is_connected_to(shell: Shell, tmp_path: Path) -> None:
    """The table has the cause of each failure, and the command fails if there is one."""
    certificates = Certificates(tmp_path, "127.0.0.1")
    async with FakeUpstream(tls=server_tls(certificates)) as upstream, FakeUpstream() as plain:
        trusted = CHANNEL.format(name="trusted", url=upstream.url, more='ca_file = "ca.pem"')
        shell.config.write_text(trusted + CHANNEL.format(name="plain", url=plain.url, more=""))
        good = await check(shell, 0)
        shell.config.write_text(
            trusted
            + CHANNEL.format(name="untrusted", url=upstream.url, more="")
            + CHANNEL.format(name="closed", url="http://127.0.0.1:1/v1", more="")
            + CHANNEL.format(name="unknown", url="https://provider.invalid/v1", more="")
        )
        bad = await check(shell, 1)

    assert good.count(" OK") == 2
    lines = {line.split()[0]: line for line in bad.splitlines() if line.strip()}
    assert lines["trusted"].endswith(" OK")
    assert "tls: " in lines["untrusted"]
    assert "certificate verify failed" in lines["untrusted"]
    assert "unreachable: " in lines["closed"]
    assert "111" in lines["closed"]
    assert "dns: " in lines["unknown"]
    assert bad.splitlines()[-1] == "pomogator: 3 of 4 connections fail"
    assert "  permanent: tls: " in lines["untrusted"]
    assert "  unreachable: " in lines["closed"]
    assert upstream.requests == plain.requests == []


@pytest.mark.skipif(TINYPROXY is None, reason="there is no tinyproxy here")
async def test_a_proxy_is_used(shell: Shell, tmp_path: Path) -> None:
    """The one of the environment, with its credentials, unless NO_PROXY names the host."""
    certificates = Certificates(tmp_path, ANY_HOST)
    async with (
        FakeUpstream(tls=server_tls(certificates)) as upstream,
        running_forward_proxy(tmp_path) as proxy,
    ):
        url = f"https://{ANY_HOST}:{upstream.port}/v1"
        shell.config.write_text(CHANNEL.format(name="a", url=url, more='ca_file = "ca.pem"'))
        assert " OK" in await check(shell, 0, HTTPS_PROXY=proxy.url)
        assert proxy.requests == [f"CONNECT {ANY_HOST}:{upstream.port}"]
        assert " OK" in await check(shell, 0, HTTPS_PROXY=proxy.url, NO_PROXY=ANY_HOST)
        assert len(proxy.requests) == 1
        refused = await check(shell, 1, HTTPS_PROXY=f"http://u:wrong@127.0.0.1:{proxy.port}")

        shell.config.write_text(CHANNEL.format(name="a", url="http://a.invalid/v1", more=""))
        forwarded = await check(shell, 0, HTTP_PROXY=proxy.url)

    assert f" OK as far as the proxy 127.0.0.1:{proxy.port}\n" in forwarded
    assert f"permanent: proxy: through the proxy 127.0.0.1:{proxy.port}: " in refused
    assert "wrong" not in refused


async def test_stores_are_connected_to(shell: Shell, postgres_server: str) -> None:
    """Each has a line with its address, and no login. Nothing is created in the database."""
    async with own_database(postgres_server) as url, FakeUpstream() as upstream:
        with running_valkey() as valkey:
            shell.config.write_text(CHANNEL.format(name="a", url=upstream.url, more=""))
            printed = await check(
                shell,
                0,
                POMOGATOR_DATABASE_URL=url,
                POMOGATOR_DATABASE_DIRECT_URL=url,
                POMOGATOR_CALL_LOG_URL=url,
                POMOGATOR_REDIS_URL=valkey.url,
            )
        owner = await asyncpg.connect(url)
        assert await owner.fetchval("SELECT to_regclass('schema_version')") is None
        assert await owner.fetchval("SELECT to_regclass('call_log_version')") is None
        await owner.close()

    rows = rows_of(printed)
    (folder,), path = parse_qs(urlsplit(url).query)["host"], urlsplit(url).path
    assert rows["state.database_url"] == rows["state.database_direct_url"] == f"{folder}{path} OK"
    assert rows["state.call_log_url"] == f"{folder}{path} OK"
    assert rows["state.redis_url"] == f"127.0.0.1:{valkey.port} OK"
    assert rows["a"] == f"{upstream.url} OK"


async def test_every_store_is_tried_where_all_are_away(shell: Shell) -> None:
    """One that fails keeps none of the others from its line. Each has the system's words."""
    database, direct, call_log, redis, channel = free_ports(5)
    shell.config.write_text(CHANNEL.format(name="a", url=f"http://127.0.0.1:{channel}", more=""))
    printed = await check(
        shell,
        1,
        POMOGATOR_DATABASE_URL=f"postgresql://u:sesame@127.0.0.1:{database},[::1]:{database}/d",
        POMOGATOR_DATABASE_DIRECT_URL=f"postgresql://u:sesame@127.0.0.1:{direct}/d",
        POMOGATOR_CALL_LOG_URL=f"postgresql://u:sesame@127.0.0.1:{call_log}/d",
        POMOGATOR_REDIS_URL=f"redis://:sesame@127.0.0.1:{redis}",
    )

    rows, refused = rows_of(printed), "Connection refused"
    first, second = f"127.0.0.1:{database}", f"[::1]:{database}"
    assert rows["state.database_url"].startswith(
        f"{first},{second}/d {first}: {refused}; {second}:"
    )
    assert rows["state.database_direct_url"] == (
        f"127.0.0.1:{direct}/d 127.0.0.1:{direct}: {refused}"
    )
    assert rows["state.call_log_url"] == (f"127.0.0.1:{call_log}/d 127.0.0.1:{call_log}: {refused}")
    assert rows["state.redis_url"] == f"127.0.0.1:{redis} {refused}"
    assert rows["a"].startswith(f"http://127.0.0.1:{channel} unreachable: ")
    assert printed.splitlines()[-1] == "pomogator: 5 of 5 connections fail"
    assert "sesame" not in printed


async def test_wrong_passwords_are_permanent(shell: Shell) -> None:
    """So are missing permissions, in the server's own words, and no password is printed."""
    with running_valkey() as valkey:
        async with Redis(port=valkey.port) as admin:
            await admin.acl_setuser("limits", enabled=True, passwords=["+secret"])
        shell.config.write_text(CHANNEL.format(name="a", url="http://127.0.0.1:1", more=""))
        url = f"127.0.0.1:{valkey.port}"
        denied = await check(shell, 1, POMOGATOR_REDIS_URL=f"redis://limits:secret@{url}")
        wrong = await check(shell, 1, POMOGATOR_REDIS_URL=f"redis://limits:sesame@{url}")

    assert rows_of(denied)["state.redis_url"].startswith(
        f"{url} permanent: NoPermissionError: User limits has no permissions to run"
    )
    assert " permanent: AuthenticationError: invalid " in rows_of(wrong)["state.redis_url"]
    assert "secret" not in denied
    assert "sesame" not in wrong


async def test_a_role_that_may_not_use_the_tables_is_permanent(
    shell: Shell, postgres_server: str
) -> None:
    """The line has the grant. So has a database that is not there its name."""
    async with own_database(postgres_server) as url:
        admin, role = await asyncpg.connect(url), f"role_{uuid4().hex[:8]}"
        await admin.execute(f"CREATE ROLE {role} LOGIN")
        ours = url.replace("postgres:@", f"{role}@")
        shell.config.write_text(CHANNEL.format(name="a", url="http://127.0.0.1:1", more=""))
        create = rows_of(await check(shell, 1, POMOGATOR_DATABASE_URL=ours))
        await (await PostgresDatabase.open(url)).close()
        use = rows_of(await check(shell, 1, POMOGATOR_DATABASE_URL=ours))
        unknown = rows_of(await check(shell, 1, POMOGATOR_DATABASE_URL=url.replace("test_", "no_")))
        setting = rows_of(await check(shell, 1, POMOGATOR_DATABASE_URL=f"{url}&pool_size=5"))
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()

    granted = f"permanent: the role {role} may not"
    assert f"{granted} create tables in the schema public: GRANT" in create["state.database_url"]
    assert f"{granted} use the tables: GRANT SELECT" in use["state.database_url"]
    assert "permanent: " in unknown["state.database_url"]
    assert "does not exist (3D000)" in unknown["state.database_url"]
    assert "permanent: " in setting["state.database_url"]
    assert 'parameter "pool_size"' in setting["state.database_url"]


async def test_a_role_that_may_not_write_the_call_log_is_permanent(
    shell: Shell, postgres_server: str
) -> None:
    """It creates partitions while it runs, for which it must own the table, and says so."""
    async with own_database(postgres_server) as url:
        admin, role = await asyncpg.connect(url), f"role_{uuid4().hex[:8]}"
        await admin.execute(f"CREATE ROLE {role} LOGIN")
        ours = url.replace("postgres:@", f"{role}@")
        shell.config.write_text(CHANNEL.format(name="a", url="http://127.0.0.1:1", more=""))
        create = rows_of(await check(shell, 1, POMOGATOR_CALL_LOG_URL=ours))
        await (await PostgresDatabase.open(url, schema=CALL_LOG)).close()
        await admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        await admin.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        own = rows_of(await check(shell, 1, POMOGATOR_CALL_LOG_URL=ours))
        await admin.execute(f"ALTER TABLE calls OWNER TO {role}")
        good = rows_of(await check(shell, 1, POMOGATOR_CALL_LOG_URL=ours))
        wrong = rows_of(await check(shell, 1, POMOGATOR_CALL_LOG_URL="mysql://a/b"))
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()

    denied = f"permanent: the role {role} may"
    assert f"{denied} not create tables in the schema public" in create["state.call_log_url"]
    assert f"{denied} create no partition of calls: ALTER TABLE" in own["state.call_log_url"]
    assert good["state.call_log_url"].endswith(" OK")
    assert "must begin with postgres" in str(wrong)


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
async def test_a_direct_url_that_leads_to_a_pooler_fails(
    shell: Shell, postgres_server: str
) -> None:
    """Notices do not arrive there, which a connection alone does not show."""
    async with (
        own_database(postgres_server) as url,
        running_pgbouncer(url, "transaction", size=1) as pooled,
    ):
        shell.config.write_text(CHANNEL.format(name="a", url="http://127.0.0.1:1", more=""))
        both = {"POMOGATOR_DATABASE_URL": url, "POMOGATOR_DATABASE_DIRECT_URL": pooled}
        rows = rows_of(await check(shell, 1, **both))

    assert rows["state.database_url"].endswith(" OK")
    assert "permanent: notices that are sent" in rows["state.database_direct_url"]


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
async def test_a_pooler_without_transactions_is_not_the_direct_urls_failure(
    shell: Shell, postgres_server: str
) -> None:
    """The line of the direct URL tells of that server alone."""
    async with (
        own_database(postgres_server) as url,
        running_pgbouncer(url, "statement") as pooled,
    ):
        shell.config.write_text(CHANNEL.format(name="a", url="http://127.0.0.1:1", more=""))
        both = {"POMOGATOR_DATABASE_URL": pooled, "POMOGATOR_DATABASE_DIRECT_URL": url}
        rows = rows_of(await check(shell, 1, **both))

    assert rows["state.database_url"].endswith(" the server closed the connection")
    assert rows["state.database_direct_url"].endswith(" OK")


async def test_a_parameter_of_redis_that_is_unknown_is_named(shell: Shell) -> None:
    """It would end the client without a word."""
    shell.config.write_text(CHANNEL.format(name="a", url="http://127.0.0.1:1", more=""))
    printed = await check(shell, 1, POMOGATOR_REDIS_URL="redis://127.0.0.1:1?timeout_ms=5")

    assert rows_of(printed)["state.redis_url"] == "permanent: unknown parameter timeout_ms"


def rows_of(printed: str) -> dict[str, str]:
    """The rest of each line, with single blanks, by its first word."""
    words = [line.split() for line in printed.splitlines() if line.strip()]
    return {first: " ".join(rest) for first, *rest in words}


async def test_a_file_of_authorities_that_cannot_be_used_is_an_error(shell: Shell) -> None:
    """OpenSSL would ignore it, and no provider with TLS could be reached."""
    assert await check(shell, 1, SSL_CERT_FILE="/none.pem") == (
        "pomogator: SSL_CERT_FILE: /none.pem: No such file or directory\n"
    )
    assert await check(shell, 1, SSL_CERT_FILE=str(shell.config)) == (
        f"pomogator: SSL_CERT_FILE: {shell.config} holds no certificate in PEM\n"
    )


async def test_an_unusable_proxy_is_an_error(shell: Shell) -> None:
    """Also without `--connect`, and at the start of the server."""
    assert await check(shell, 1, HTTPS_PROXY="socks5://u:pw@a") == (
        "pomogator: HTTPS_PROXY: must be http://[USER:PASSWORD@]HOST[:PORT]\n"
    )
