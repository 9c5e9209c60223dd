"""Encrypted from the client to the service, between processes; or not at all by accident."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest
import trustme

from tests.end_to_end.process import serving
from tests.fakes.upstream import FakeUpstream, json_answer
from tests.services.test_tls import Files

CONFIG = """
[[channels]]
name = "house"
dialect = "openai"
base_url = "{url}"
[channels.models]
"house/model" = "m"
"""
ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "message": {"content": "Hi."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


async def test_edge_and_service_know_each_other(tmp_path: Path) -> None:
    """HTTPS to the edge, mutual TLS to the service; another edge is not let in."""
    files = Files(tmp_path, "127.0.0.1")
    server, server_key = files.issue("server")
    edge, edge_key = files.issue("edge")
    stranger, stranger_key = files.issue("stranger", trustme.CA())
    trust = ssl.create_default_context(cafile=files.ca)
    shown = ("--tls-cert", server, "--tls-key", server_key)
    (tmp_path / "service").mkdir()
    (tmp_path / "edge").mkdir()
    async with (
        FakeUpstream() as upstream,
        serving(
            *(tmp_path / "service", CONFIG.format(url=upstream.url), *shown),
            *("--tls-client-ca", files.ca),
            only="grpc",
        ) as service,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {service.key}"}) as http,
    ):
        upstream.play([json_answer(ANSWER)])
        target = ("--target", await service.tcp_address(), "--target-ca", files.ca)
        for certificate, key, expected in ((edge, edge_key, 200), (stranger, stranger_key, 503)):
            mine = ("--target-cert", certificate, "--target-key", key)
            async with serving(tmp_path / "edge", "", *shown, *target, *mine, only="rest") as front:
                url = f"https://{await front.address('http')}/v1/chat/completions"
                body = {"model": "house/model", "messages": [{"role": "user", "content": "Hi"}]}
                async with http.post(url, json=body, ssl=trust) as answer:
                    assert answer.status == expected, await answer.text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rest", "0.0.0.0:0"),
        ("--grpc", "[::]:0"),
        ("--only", "rest", "--target", "dns:///pomogator-grpc:50051"),
        ("--tls-cert", "nowhere.pem"),
    ],
)
async def test_plain_text_is_no_accident(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """What would leave the machine unencrypted is refused at the start, in one line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", "serve", "--state", tmp_path),
        *("--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "", *arguments),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    _, said = await process.communicate()

    assert process.returncode == 1
    assert said.startswith(b"pomogator: --")
    assert said.count(b"\n") == 1
