"""Comparing the shipped models with a provider's list, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.refresh_models import SHIPPED, compared, without
from services.config import ChannelConfig, Config, Secret

PAGES = {
    None: {"data": [{"id": "old", "object": "model"}], "has_more": True, "last_id": "old"},
    "old": {"data": [{"id": "new"}], "has_more": False, "last_id": "new"},
}


@pytest.fixture
async def config() -> AsyncIterator[Config]:
    """One channel whose provider lists `old` and `new`, to those with the key, on two pages."""

    async def models(request: web.Request) -> web.Response:
        if request.headers.get("x-api-key") != "sk-invented":
            raise web.HTTPUnauthorized
        assert request.headers["anthropic-version"]
        return web.json_response(PAGES[request.query.get("after_id")])

    app = web.Application()
    app.router.add_get("/v1/models", models)
    async with TestServer(app) as server:
        channel = ChannelConfig(
            name="vendor",
            dialect="anthropic",
            base_url=str(server.make_url("/v1")),
            models={"vendor/old": "old", "vendor/lost": "lost"},
            key=Secret("sk-invented"),
        )
        yield Config(channels=(channel,))


async def test_tells_what_is_gone_and_what_is_new(config: Config) -> None:
    """All pages are read; what is new comes as a line to paste, under the channel's prefix."""
    told, lost = await compared(config)

    assert told == ["# vendor: 2 listed, 1 gone", "# gone: vendor/lost", '"vendor/new" = "new"']
    assert lost == {"vendor/lost": "lost"}


def test_takes_out_only_the_lines_of_models_that_are_gone() -> None:
    """The rest of the file, with its comments, stays as it was."""
    text = '# Ours.\n[channels.models]\n"v/a" = "a"\n"v/b" = "b"\n'

    assert without(text, {"v/a": "a"}) == '# Ours.\n[channels.models]\n"v/b" = "b"\n'


def test_knows_the_shipped_file() -> None:
    """Its lines are written as the script looks for them."""
    text = SHIPPED.read_text()
    line = '"anthropic/claude-sonnet-4-5-20250929" = "claude-sonnet-4-5-20250929"\n'

    assert line in text
    gone = {"anthropic/claude-sonnet-4-5-20250929": "claude-sonnet-4-5-20250929"}
    assert without(text, gone) == text.replace(line, "")
