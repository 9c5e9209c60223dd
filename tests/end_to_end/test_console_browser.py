"""The console in a real browser, over a real process."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from services import local
from tests.stand.chromium import (
    needs_axe,
    needs_chromium,
    new_profile,
    serious_findings,
)
from tests.stand.configuration import MODEL, configuration
from tests.stand.console_browsing import (
    ANSWER_MS,
    console_url,
    found_call,
    operators_token,
    sign_in,
)
from tests.stand.held_provider import HeldProvider
from tests.stand.process import Server
from tests.stand.servers import HTTP, STOP_SOON, running_server
from tests.stand.upstream import FakeUpstream

pytestmark = needs_chromium

TENANT_PAGES = (
    "",
    "/keys",
    "/usage",
    "/calls",
    "/audit",
    "/playground",
    "/models",
    "/quick-starts",
)
OPERATOR_PAGES = (
    "/accounts",
    "/accounts/default",
    "/channels",
    "/limits",
    "/load",
    "/live-calls",
    "/calls",
    "/audit",
    "/explain",
    "/configuration",
    "/ledger",
)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the server's state, which its tests share."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
async def server(state: Path) -> AsyncIterator[Server]:
    """Start the server of `make run`, with a script in place of the model."""
    config = resources.files(local) / "scripted.toml"
    server = Server(
        *("--rest", "127.0.0.1:0", "--grpc", f"unix:{state / 'grpc.sock'}", "--metrics", ""),
        *("--console", "127.0.0.1:0", "--config", config, "--state", state, *STOP_SOON),
        ready=HTTP,
    )
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def held_server(tmp_path: Path) -> AsyncIterator[tuple[Server, HeldProvider]]:
    """A server with a console, and its provider, which tests can hold."""
    provider = HeldProvider()
    async with FakeUpstream() as upstream:
        upstream.play(provider)
        config = configuration(upstream.url, prices={"request_usd": 0.001})
        async with running_server(
            tmp_path, config, "--console", "127.0.0.1:0", *STOP_SOON
        ) as server:
            yield server, provider


async def test_a_newcomer_gets_a_streamed_answer(server: Server, browser: Browser) -> None:
    """With the address and the key that were printed; nothing violates the page's policy."""
    url, key = await console_url(server), await server.first_key()
    async with new_profile(browser) as (context, complaints):
        page = await context.new_page()
        await sign_in(page, url, key)
        await page.get_by_role("link", name="Playground").click()

        await page.get_by_label("Message").fill("Hello!")
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()
        await page.keyboard.press("Control+Enter")

        answer = page.locator("article").nth(1)
        await expect(answer.locator("[data-fact=total]")).not_to_be_empty(timeout=ANSWER_MS)
        await expect(answer.locator(".text")).not_to_be_empty()
        await expect(answer.locator("[data-fact=cost]")).to_have_text("$0.00")
        await expect(answer.locator("[data-fact=finish]")).to_have_text("stop")
        await page.get_by_role("link", name="Overview").click()
        await expect(page.locator(".tiles")).to_contain_text("unlimited")
        assert complaints.found == []
        assert {cookie["httpOnly"] for cookie in await context.cookies()} == {True}


async def test_no_message_gets_into_a_url(server: Server, browser: Browser) -> None:
    """The form cannot be sent until the playground's script has arrived."""
    url, key = await console_url(server), await server.first_key()
    async with new_profile(browser) as (context, _):
        page = await context.new_page()
        await sign_in(page, url, key)
        await page.route("**/playground.js*", lambda route: route.abort())
        await page.goto(f"{url}/playground")
        await page.get_by_label("Message").fill("a secret")
        await page.get_by_label("System prompt").press("Enter")

        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        assert page.url == f"{url}/playground"


async def test_a_keyboard_is_enough(server: Server, browser: Browser) -> None:
    """Shortcuts open pages and focus the filter of a table, which hides the other rows."""
    url, key = await console_url(server), await server.first_key()
    async with new_profile(browser) as (context, complaints):
        page = await context.new_page()
        await page.goto(url)
        await page.keyboard.type(key)  # The field has the focus.
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("link", name="Overview")).to_be_visible()

        await page.keyboard.type("gm")
        await expect(page.get_by_role("heading", name="Models")).to_be_visible()
        await page.keyboard.type("/nothing")
        await expect(page.locator("#models tbody tr")).to_be_hidden()
        assert complaints.found == []


async def test_theme_and_language_change(server: Server, browser: Browser) -> None:
    """The system's theme is the first one; the chosen ones stay."""
    url = await console_url(server)
    dark = "rgb(20, 23, 28)"
    async with new_profile(browser, color_scheme="dark") as (context, complaints):
        page = await context.new_page()
        await page.goto(url)
        await expect(page.locator("html")).to_have_css("background-color", dark)
        await page.get_by_role("button", name="Light").click()
        await expect(page.locator("html")).to_have_css("background-color", "rgb(255, 255, 255)")

        await page.get_by_role("button", name="Русский").click()
        await expect(page.get_by_role("heading", name="Вход")).to_be_visible()
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("data-theme", "light")
        assert complaints.found == []


async def test_an_operator_makes_a_key(server: Server, state: Path, browser: Browser) -> None:
    """With the token of the state. A revocation asks before."""
    url = await console_url(server)
    async with new_profile(browser) as (context, complaints):
        page = await context.new_page()
        await sign_in(page, url, operators_token(state), "Accounts")
        await page.get_by_role("link", name="default").click()
        await page.get_by_label("Name").last.fill("bot")
        await page.get_by_role("button", name="Create key").click()
        await expect(page.locator("#secret")).to_contain_text("sk-pg-")

        row = page.locator("tr.changeable").filter(has_text="bot")
        page.once("dialog", lambda dialog: dialog.dismiss())
        await row.get_by_role("button", name="Revoke").click()
        await page.reload()
        page.once("dialog", lambda dialog: dialog.accept())
        await row.get_by_role("button", name="Revoke").click()
        await expect(page.locator("tr.past").filter(has_text="bot")).to_contain_text("revoked")
        assert complaints.found == []


async def made_key(page: Page, name: str) -> str:
    """Make a key on the page of its account, and return its secret."""
    await page.get_by_label("Name").last.fill(name)
    await page.get_by_role("button", name="Create key").click()
    return (await page.locator("#secret").inner_text()).strip()


async def curl(api: str, key: str, *, stream: bool) -> asyncio.StreamReader:
    """Return the output of curl for an answer. It ends with this test's loop at the latest."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--no-buffer", f"{api}/v1/chat/completions"),
        *("--header", f"Authorization: Bearer {key}", "--header", "Content-Type: application/json"),
        *("--data", json.dumps(body)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    return process.stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
async def test_a_key_is_used_found_in_the_log_and_revoked_in_a_stream(
    held_server: tuple[Server, HeldProvider], browser: Browser
) -> None:
    """The stream ends with an error when the key is revoked in the browser."""
    server, provider = held_server
    url, api = await console_url(server), f"http://{await server.address('http')}"
    async with new_profile(browser) as (context, complaints):
        page = await context.new_page()
        await sign_in(page, url, await server.first_key())
        await page.get_by_role("link", name="Keys").click()
        secret = await made_key(page, "bot")
        row = page.locator("tr.changeable").filter(has_text="bot")
        key_id = await row.locator("input[name=key_id]").get_attribute("value")
        assert key_id is not None

        whole = await curl(api, secret, stream=False)
        assert b"Good day" in await whole.read()
        await found_call(page, f"{url}/calls?key_id={key_id}")
        await expect(page.locator("main")).to_contain_text("house/model")
        await expect(page.locator(".tiles")).to_contain_text("stop")

        provider.goes_on.clear()
        stream = await curl(api, secret, stream=True)
        await stream.readuntil(b"Good")
        await page.get_by_role("link", name="Keys").click()
        page.once("dialog", lambda dialog: dialog.accept())
        await row.get_by_role("button", name="Revoke").click()
        rest = await stream.read()
        assert b'"error"' in rest
        assert b" day" not in rest
        assert complaints.found == []


async def test_no_page_is_wider_than_a_phone(server: Server, state: Path, browser: Browser) -> None:
    """The language is that with the longer words. Tables scroll in a part of their own."""
    url, key = await console_url(server), await server.first_key()
    wide: list[str] = []
    async with new_profile(browser, viewport={"width": 390, "height": 800}, locale="ru-RU") as (
        context,
        _,
    ):
        page = await context.new_page()
        for credential, paths in ((key, TENANT_PAGES), (operators_token(state), OPERATOR_PAGES)):
            await page.goto(url)
            await page.locator("#key").fill(credential)
            await page.keyboard.press("Enter")
            await expect(page.locator("nav").first).to_be_visible()
            for path in paths:
                await page.goto(url + path)
                if await page.evaluate("document.documentElement.scrollWidth") > 390:
                    wide.append(path)
            await page.get_by_role("button", name="Выйти").click()

    assert wide == []


@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_pages_are_accessible(
    server: Server, state: Path, theme: str, browser: Browser
) -> None:
    """axe-core finds nothing serious on any page, in either theme."""
    url, key = await console_url(server), await server.first_key()
    async with new_profile(browser, color_scheme=theme, bypass_csp=True) as (context, _):
        page = await context.new_page()
        await page.goto(url)
        await page.get_by_label("API key").fill("wrong")
        await page.get_by_role("button", name="Sign in").click()
        found = {"sign-in": await serious_findings(page)}
        await sign_in(page, url, key)
        for path in TENANT_PAGES:
            await page.goto(url + path)
            found[path] = await serious_findings(page)
        await page.get_by_role("button", name="Sign out").click()
        await sign_in(page, url, operators_token(state), "Accounts")
        for path in OPERATOR_PAGES:
            await page.goto(url + path)
            found[path] = await serious_findings(page)

    assert not any(found.values()), found
