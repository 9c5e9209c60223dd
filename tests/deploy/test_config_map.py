"""A configuration that is applied again is used by the pods that run."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tests.stand.configuration import configuration
from tests.stand.held_provider import PATH, HeldProvider
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream


def replace(path: Path, text: str) -> None:
    """Replaces a file atomically, as the kubelet does."""
    (path.parent / "..next").write_text(text)
    (path.parent / "..next").rename(path)


async def test_a_replaced_configuration_is_used(tmp_path: Path) -> None:
    """With the manifests' `--watch-config` the new model answers, and a mistake changes nothing."""
    path = tmp_path / "pomogator.toml"
    async with FakeUpstream() as upstream:
        upstream.play(HeldProvider())
        old = configuration(upstream.url, model="house/old")
        async with (
            running_server(tmp_path, old, "--watch-config") as server,
            aiohttp.ClientSession() as http,
        ):

            async def status(model: str) -> int:
                url = f"http://{await server.address('http')}{PATH}"
                headers = {"Authorization": f"Bearer {server.key}"}
                body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
                async with http.post(url, json=body, headers=headers) as answer:
                    await answer.read()
                    return answer.status

            replace(path, f"{old}\nno_such_key = 1")
            await server.event("config.refused")
            assert await status("house/old") == 200

            replace(path, configuration(upstream.url, model="house/new"))
            await server.event("config.reloaded")
            assert await status("house/new") == 200
            assert await status("house/old") == 400
