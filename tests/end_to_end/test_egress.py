"""A server process that reaches its provider over a real forward proxy, with certificates."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import aiohttp
import pytest

from tests.stand.certificates import Certificates
from tests.stand.configuration import MODEL, configuration
from tests.stand.forward_proxy import ANY_HOST, TINYPROXY, running_forward_proxy
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream, json_answer

ANSWER = {
    "id": "c",
    "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
FILES = """
ca_file = "ca.pem"
client_certificate = "gateway.pem"
client_key = "gateway.key"
"""


def server_tls(certificates: Certificates) -> ssl.SSLContext:
    """TLS of a provider that asks for a certificate of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    context.load_cert_chain(*certificates.issue("provider"))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def status(server: Server) -> int:
    """Return the status of a call."""
    url = f"http://{await server.address('http')}/v1/chat/completions"
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"Authorization": f"Bearer {server.key}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json=asked, headers=headers) as response,
    ):
        await response.read()
        return response.status


@pytest.mark.skipif(TINYPROXY is None, reason="there is no tinyproxy on this machine")
async def test_a_provider_behind_a_proxy_with_certificates(tmp_path: Path) -> None:
    """Calls pass, also with a new authority after a reload; a reload of an empty file is refused.

    Once the provider is gone, the log has the proxy's words, and no password.
    """
    certificates = Certificates(tmp_path, ANY_HOST)
    certificates.issue("gateway", None, "gateway.example")
    async with (
        FakeUpstream(tls=server_tls(certificates)) as upstream,
        running_forward_proxy(tmp_path) as proxy,
    ):
        upstream.play([json_answer(ANSWER)])
        text = configuration(f"https://{ANY_HOST}:{upstream.port}/v1", channel=FILES)
        env = {"HTTPS_PROXY": proxy.url, "NO_PROXY": "other.example"}
        async with running_server(tmp_path, text, env=env) as server:
            assert await status(server) == 200
            assert proxy.requests == [f"CONNECT {ANY_HOST}:{upstream.port}"]

            changed = Certificates(tmp_path, ANY_HOST)
            changed.issue("gateway", None, "gateway.example")
            async with FakeUpstream(tls=server_tls(changed)) as renewed:
                renewed.play([json_answer(ANSWER)])
                file = tmp_path / "pomogator.toml"
                file.write_text(text.replace(str(upstream.port), str(renewed.port)))
                server.send_signal(signal.SIGHUP)
                await server.event("config.reloaded")
                assert await status(server) == 200

                file.write_text("")
                server.send_signal(signal.SIGHUP)
                await server.event("config.refused")
                assert await status(server) == 200
            assert await status(server) == 502
            line = await server.event("channel.failed")
    assert line["channel"] == "house"
    assert line["host"] == f"{ANY_HOST}:{renewed.port}"
    assert line["cause"].startswith(f"proxy: through the proxy 127.0.0.1:{proxy.port}: ")
    assert "s3cret" not in server.log
