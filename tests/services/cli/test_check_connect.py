"""`pomogator check --connect`: a connection to every channel, over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.cli import main
from tests.services.cli.conftest import Shell
from tests.stand.certificates import Certificates
from tests.stand.forward_proxy import ANY_HOST, TINYPROXY, running_forward_proxy
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
    assert bad.splitlines()[-1] == "pomogator: 3 of 4 channels cannot be reached"
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
    assert f"proxy: through the proxy 127.0.0.1:{proxy.port}: " in refused
    assert "wrong" not in refused


async def test_the_shared_limits_are_connected_to(shell: Shell) -> None:
    """A user without the permission to run scripts is an error, with the server's words."""
    with running_valkey() as valkey:
        url = f"127.0.0.1:{valkey.port}"
        async with Redis(port=valkey.port) as admin:
            await admin.acl_setuser("limits", enabled=True, passwords=["+secret"])
        async with FakeUpstream() as upstream:
            shell.config.write_text(CHANNEL.format(name="a", url=upstream.url, more=""))
            good = await check(shell, 0, POMOGATOR_REDIS_URL=f"redis://{url}")
            bad = await check(shell, 1, POMOGATOR_REDIS_URL=f"redis://limits:secret@{url}")

    assert "OK: limits are shared\n" in good
    assert "pomogator: state.redis_url: NoPermissionError: User limits has no permi" in bad
    assert "secret" not in bad


async def test_an_unusable_proxy_is_an_error(shell: Shell) -> None:
    """Also without `--connect`, and at the start of the server."""
    assert await check(shell, 1, HTTPS_PROXY="socks5://u:pw@a") == (
        "pomogator: HTTPS_PROXY: must be http://[USER:PASSWORD@]HOST[:PORT]\n"
    )
