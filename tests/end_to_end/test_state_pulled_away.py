"""A server whose SQLite file is deleted or replaced while it runs."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from services.storage.sqlite_file import FILE
from tests.stand.configuration import configuration
from tests.stand.held_provider import ASKED, PATH, HeldProvider
from tests.stand.polling import until_status
from tests.stand.servers import running_server
from tests.stand.shell import Shell
from tests.stand.upstream import FakeUpstream


@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_charged_into_a_file_that_is_gone(tmp_path: Path, replaced: bool) -> None:
    """The server says so, is unready, and refuses calls and keys until the file is back."""
    shell, file = Shell(tmp_path), tmp_path / "var" / FILE
    async with (
        FakeUpstream() as upstream,
        running_server(tmp_path, configuration(upstream.url)) as server,
        aiohttp.ClientSession(f"http://{await server.address('http')}") as http,
    ):
        upstream.play(HeldProvider())
        key = {"Authorization": f"Bearer {await server.first_key()}"}
        file.rename(tmp_path / "kept")
        if replaced:
            file.touch()

        await server.event("database_file.replaced")
        await until_status(http, "/readyz", 503)

        async with http.post(PATH, json=ASKED, headers=key) as answer:
            assert answer.status == 503
        refused = await shell.run("keys", "create", "--account", "acme", code=1)
        assert "The gateway cannot reach its state." in refused
        assert file.exists() is replaced
        assert not upstream.requests

        (tmp_path / "kept").rename(file)
        await until_status(http, "/readyz", 200)
        async with http.post(PATH, json=ASKED, headers=key) as answer:
            assert answer.status == 200
