"""Limits, load, configuration and dry runs in the console, in a real browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from tests.stand.chromium import Complaints, needs_chromium, new_profile
from tests.stand.configuration import MODEL, configuration
from tests.stand.console_browsing import (
    ANSWER_MS,
    console_url,
    operators_token,
    post,
    sign_in,
)
from tests.stand.held_provider import HeldProvider
from tests.stand.process import Server
from tests.stand.servers import STOP_SOON, running_server
from tests.stand.upstream import FakeUpstream

pytestmark = needs_chromium

MORE = f"""
[[channels]]
name = "vectors"
dialect = "openai"
base_url = "http://127.0.0.1:9/v1"
models = {{ "house/embed" = "text-embedding-3-small" }}

[[models]]
name = "house/embed"
embeddings = {{}}
prompt_usd_per_mtok = 1

[[limits]]
model = "{MODEL}"
rpm = 7
"""


class Operating(NamedTuple):
    """An operator's page, signed in, and the server that it is of."""

    page: Page
    url: str
    server: Server
    provider: HeldProvider
    file: Path
    complaints: Complaints


@asynccontextmanager
async def operated(folder: Path, browser: Browser) -> AsyncIterator[Operating]:
    """A server with two channels of a model with a cache price, and one for embeddings."""
    async with FakeUpstream() as upstream:
        provider = HeldProvider()
        upstream.play(provider)
        prices = {"prompt_usd_per_mtok": 2, "cache_read_usd_per_mtok": 1}
        config = configuration(upstream.url, upstream.url, prices=prices) + MORE
        config = config.replace("priority = 1", "priority = 0")
        running = running_server(folder, config, "--console", "127.0.0.1:0", *STOP_SOON)
        async with running as server, new_profile(browser) as (context, complaints):
            url, page = await console_url(server), await context.new_page()
            await sign_in(page, url, operators_token(folder / "var"), "Accounts")
            file = folder / "pomogator.toml"
            yield Operating(page, url, server, provider, file, complaints)


@pytest.fixture(scope="module")
async def shared(
    tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> AsyncIterator[Operating]:
    """One for the tests that leave the configuration as it is."""
    async with operated(tmp_path_factory.mktemp("operated"), browser) as found:
        yield found


@pytest.fixture
async def operating(shared: Operating) -> AsyncIterator[Operating]:
    """The shared one. Each test checks its own complaints, and may hold the provider."""
    shared.complaints.found.clear()
    yield shared
    shared.provider.goes_on.set()


async def test_a_reload_is_shown_before_it_is_made(tmp_path: Path, browser: Browser) -> None:
    """The page shows the changes, a file that has changed since, and problems, but no secret."""
    async with operated(tmp_path, browser) as operating:
        await reload(operating)


async def reload(operating: Operating) -> None:
    """Change the file, look at the page, and reload, more than once."""
    page, file = operating.page, operating.file
    await page.goto(f"{operating.url}/configuration")
    await expect(page.locator("main")).to_contain_text("are the same")

    text = file.read_text()
    file.write_text(text.replace("rpm = 7", "rpm = 8"))
    await page.reload()
    await expect(page.locator(".removed")).to_contain_text('"rpm": 7')
    await expect(page.locator(".added")).to_contain_text('"rpm": 8')

    file.write_text(text.replace("rpm = 7", "rpm = 9"))
    await page.get_by_role("button", name="Reload configuration").click()
    await expect(page.get_by_role("alert")).to_contain_text("has changed since")
    await expect(page.locator(".added")).to_contain_text('"rpm": 9')
    await page.get_by_role("button", name="Reload configuration").click()
    await expect(page.get_by_role("status")).to_contain_text("was reloaded")
    await page.get_by_role("link", name="Limits").click()
    await expect(page.locator("#limits tbody tr").first).to_contain_text("9")

    file.write_text("channels = 3")
    await page.get_by_role("link", name="Configuration").click()
    await expect(page.locator("main")).to_contain_text("a reload would fail")
    await expect(page.get_by_role("button", name="Reload configuration")).to_have_count(0)
    assert operating.complaints.found == []


async def test_a_limit_shows_its_use(operating: Operating) -> None:
    """The use is that of the calls that were made."""
    api = f"http://{await operating.server.address('http')}"
    for _ in range(2):
        await post(api, await operating.server.first_key())

    await operating.page.goto(f"{operating.url}/limits")
    row = operating.page.locator("#limits tbody tr").first
    await expect(row).to_contain_text(MODEL)
    # The use falls by 7 a minute.
    await expect(row.locator(".uses .figure")).to_have_text(re.compile(r"^(?!0\.0)[0-2]\.\d$"))


async def test_the_load_refreshes_itself_until_it_is_switched_off(operating: Operating) -> None:
    """The table changes in place, without a click."""
    page = operating.page
    await page.goto(f"{operating.url}/load")
    await expect(page.locator(".tiles")).to_contain_text("normal")
    await page.locator("#load h2").first.evaluate("element => { element.textContent = 'old'; }")
    await expect(page.locator("#load h2").first).to_have_text("Thresholds", timeout=60_000)

    button = page.get_by_role("button", name="Auto-refresh")
    await expect(button).to_have_attribute("aria-pressed", "true")
    await button.press("Enter")
    await expect(button).to_have_attribute("aria-pressed", "false")
    assert operating.complaints.found == []


async def test_affinity_and_embeddings_are_explained(operating: Operating) -> None:
    """The page has the channel of a session, the reason for none, and the body for embeddings."""
    page = operating.page
    await page.goto(f"{operating.url}/explain")
    await page.get_by_label("Model").select_option(MODEL)
    await page.get_by_role("button", name="Explain").click()
    await expect(page.locator(".affinity")).to_contain_text("do not cache so short a prompt")

    await page.get_by_label("Session").fill("night-shift")
    await page.get_by_label("Message").fill("word " * 3000)
    await page.get_by_role("button", name="Explain").click()
    first = await page.locator("section h2").first.inner_text()
    channel = first.removeprefix("1. ").split()[0]
    await expect(page.locator(".affinity")).to_contain_text(f"night-shift → {channel}")

    await page.get_by_label("Model").select_option("house/embed")
    await page.get_by_label("Message").fill("Hello")
    await page.get_by_role("button", name="Explain").click()
    await expect(page.locator(".tiles")).to_contain_text("Requests to the provider")
    await expect(page.locator("pre")).to_contain_text("text-embedding-3-small")
    assert operating.complaints.found == []


async def test_an_operator_aborts_a_call(operating: Operating) -> None:
    """The call is in the table while it runs, and its caller gets an error."""
    page, api = operating.page, f"http://{await operating.server.address('http')}"
    operating.provider.goes_on.clear()
    key = await operating.server.first_key()
    call = asyncio.ensure_future(stream_of(api, key))
    await page.goto(f"{operating.url}/live-calls")
    row = page.locator("#live tbody tr").filter(has_text="answering")
    await expect(row).to_contain_text("default", timeout=ANSWER_MS)

    await page.locator("#live summary").click()
    await page.get_by_label("Reason").fill("a runaway agent")
    await page.get_by_role("button", name="Abort").click()
    await expect(page.get_by_role("status")).to_contain_text("is aborted")
    assert "call_aborted" in await call
    await expect(page.locator("#live")).to_contain_text("0 in flight", timeout=ANSWER_MS)
    assert operating.complaints.found == []


async def test_a_channel_is_tested_with_a_click(operating: Operating) -> None:
    """The page has the channel's answer, or the reason of the failure."""
    page = operating.page
    await page.goto(f"{operating.url}/channels")
    rows = page.locator("#channels tbody tr")
    await rows.filter(has_text="house-1").get_by_role("button", name="Test").click()
    await expect(page.get_by_role("status")).to_contain_text("has answered")

    await rows.filter(has_text="vectors").get_by_role("button", name="Test").click()
    await expect(page.get_by_role("alert")).to_contain_text("The test failed")
    assert operating.complaints.found == []


async def stream_of(api: str, key: str) -> str:
    """Return all bytes of a stream."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http,
        http.post(f"{api}/v1/chat/completions", json=body) as response,
    ):
        return await response.text()
