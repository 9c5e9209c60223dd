"""Headless Chromium for tests of the console, and its errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    async_playwright,
)

CHROMIUM = shutil.which("chromium")
AXE = Path(os.environ.get("POMOGATOR_NODE_MODULES", ""), "axe-core", "axe.min.js")

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
needs_axe = pytest.mark.skipif(
    not AXE.is_file(), reason="POMOGATOR_NODE_MODULES is not set: axe-core is not at hand"
)

ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
"""A container has no user namespaces, and little shared memory."""

SERIOUS = {"serious", "critical"}

AXE_SOURCE = AXE.read_text("utf-8") if AXE.is_file() else ""
RUN_AXE = "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"


@dataclass  # without slots: Playwright sets attributes
class Complaints:
    """Errors of a browser: those of scripts, and violations of the content security policy."""

    found: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Listen to a page. A status of an answer is no complaint."""
        page.on("pageerror", self._add_error)
        page.on("console", self._add_message)

    def _add_error(self, error: Error) -> None:
        self.found.append(str(error))

    def _add_message(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "the server responded with a status of" not in message.text:
            self.found.append(message.text)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def new_profile(
    browser: Browser, **options: Any
) -> AsyncIterator[tuple[BrowserContext, Complaints]]:
    """A new profile, which shares nothing with others. `options` are those of `new_context`."""
    complaints = Complaints()
    context = await browser.new_context(**{"locale": "en-US", **options})
    try:
        context.on("page", complaints.watch)
        yield context, complaints
    finally:
        await context.close()


async def serious_findings(page: Page) -> Sequence[str]:
    """The serious findings of axe-core about a page."""
    await page.evaluate(AXE_SOURCE)
    return [
        f"{found['id']}: {found['help']}: {[node['html'] for node in found['nodes']]}"
        for found in await page.evaluate(RUN_AXE)
        if found["impact"] in SERIOUS
    ]
