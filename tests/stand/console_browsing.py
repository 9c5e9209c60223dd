"""Steps in a console, as a browser takes them."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from playwright.async_api import Page, expect

from tests.stand.configuration import MODEL
from tests.stand.process import Server

ANSWER_MS = 60_000
"""The longest time to an answer on a busy machine. No test depends on it."""


async def console_url(server: Server) -> str:
    """The address of the console that the server prints."""
    url = f"http://{await server.address('console')}/console"
    await server.printed(url)
    return url


async def sign_in(page: Page, url: str, credential: str, first: str = "Overview") -> None:
    """Open the console, and sign in. `first` is the entry of the first page."""
    await page.goto(url)
    await page.get_by_label("API key").fill(credential)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("navigation").get_by_role("link", name=first)).to_be_visible()


def operators_token(state: Path) -> str:
    """The token that the first start has made."""
    return (state / "console-token").read_text()


async def found_call(page: Page, url: str) -> None:
    """Load a page of the call log until it has a call, and open that."""
    while True:
        await page.goto(url)
        link = page.locator("table.calls tbody a").first
        if await link.count():
            await link.click()
            return


async def post(api: str, key: str) -> None:
    """Ask for an answer, and read it."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{api}/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200, await response.text()
