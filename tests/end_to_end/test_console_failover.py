"""Channels and failovers in the console, in a real browser."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser, expect

from tests.stand.chromium import needs_chromium, new_profile
from tests.stand.configuration import MODEL, configuration
from tests.stand.console_browsing import (
    ANSWER_MS,
    console_url,
    found_call,
    operators_token,
    post,
    sign_in,
)
from tests.stand.held_provider import HeldProvider
from tests.stand.servers import STOP_SOON, running_server
from tests.stand.upstream import FakeUpstream, json_answer

pytestmark = needs_chromium


async def test_an_operator_sees_a_failover(tmp_path: Path, browser: Browser) -> None:
    """The page shows the failure of the first channel, and both attempts of the call."""
    async with FakeUpstream() as broken, FakeUpstream() as upstream:
        broken.play([json_answer({"error": {"message": "No."}}, 500)])
        upstream.play(HeldProvider())
        config = configuration(broken.url, upstream.url, prices={"request_usd": 0.001})
        running = running_server(tmp_path, config, "--console", "127.0.0.1:0", *STOP_SOON)
        async with running as server, new_profile(browser) as (context, complaints):
            url, page = await console_url(server), await context.new_page()
            await sign_in(page, url, await server.first_key())
            await page.get_by_role("link", name="Playground").click()
            await page.get_by_label("Message").fill("Hello!")
            await page.get_by_role("button", name="Send").click()
            answer = page.locator("article").nth(1)
            await expect(answer.locator(".text")).to_have_text("Good day", timeout=ANSWER_MS)
            await expect(answer.locator("[data-fact=cost]")).to_have_text("$0.001")
            await page.get_by_role("button", name="Sign out").click()

            await sign_in(page, url, operators_token(tmp_path / "var"), "Accounts")
            await page.get_by_role("link", name="Channels").click()
            channel = page.get_by_role("row").filter(has_text="500")
            await expect(channel).to_contain_text("house")
            await found_call(page, f"{url}/calls?model={MODEL}")
            attempts = page.locator("ol li")
            await expect(attempts.nth(0)).to_contain_text("UPSTREAM")
            await expect(attempts.nth(1)).to_contain_text("house-1")
            assert complaints.found == []


async def test_an_operator_disables_a_channel_and_calls_go_to_the_next(
    tmp_path: Path, browser: Browser
) -> None:
    """The call log names the channel that answered."""
    async with FakeUpstream() as first, FakeUpstream() as second:
        for upstream in (first, second):
            upstream.play(HeldProvider())
        config = configuration(first.url, second.url, prices={"request_usd": 0.001})
        running = running_server(tmp_path, config, "--console", "127.0.0.1:0", *STOP_SOON)
        async with running as server, new_profile(browser) as (context, complaints):
            url, page = await console_url(server), await context.new_page()
            await sign_in(page, url, operators_token(tmp_path / "var"), "Accounts")
            await page.get_by_role("link", name="Channels").click()
            await page.locator("select[name=channel]").select_option("house")
            await page.get_by_label("Reason").fill("it is ill")
            await page.get_by_role("button", name="Disable").click()
            disabled = page.locator("#channels tr").filter(has_text="it is ill")
            await expect(disabled).to_contain_text("disabled")

            api = f"http://{await server.address('http')}"
            await post(api, await server.first_key())
            await found_call(page, f"{url}/calls?channel=house-1")
            assert not first.requests
            assert complaints.found == []


async def test_the_playground_shows_route_and_notes(tmp_path: Path, browser: Browser) -> None:
    """It shows the model that answered, the call in the log, and parameters that were dropped."""
    async with FakeUpstream() as upstream:
        upstream.play(HeldProvider())
        config = configuration(upstream.url, channel='quirks = { drops = ["temperature"] }\n')
        running = running_server(tmp_path, config, "--console", "127.0.0.1:0", *STOP_SOON)
        async with running as server, new_profile(browser) as (context, complaints):
            url, page = await console_url(server), await context.new_page()
            await sign_in(page, url, await server.first_key())
            await page.get_by_role("link", name="Playground").click()
            await page.get_by_label("Temperature").fill("0.5")
            await page.get_by_label("Message").fill("Hello!")
            await page.get_by_role("button", name="Send").click()

            answer = page.locator("article").nth(1)
            await expect(answer.locator("[data-fact=total]")).not_to_be_empty(timeout=ANSWER_MS)
            await expect(answer.locator("[data-fact=model]")).to_have_text(MODEL)
            await expect(answer.locator(".notes li")).to_contain_text("temperature")
            link = await answer.locator("[data-fact=request]").get_attribute("href")
            await found_call(page, f"{url}{link}".replace("/console/console", "/console"))
            await expect(page.locator("nav [aria-current]")).to_have_text("Calls")
            await expect(page.locator("main")).to_contain_text("temperature")
            assert complaints.found == []
