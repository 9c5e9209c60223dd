"""A gateway for each dialect, and a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from playwright.async_api import Browser

from tests.stand.chromium import chromium
from tests.stand.dialect_stand import DIALECTS, DialectStand, dialect_stand


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A browser. Each test takes a new profile."""
    async with chromium() as running:
        yield running


@pytest.fixture(params=DIALECTS)
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DialectStand]:
    """A gateway and a provider that speaks each of the dialects in turn."""
    async with dialect_stand(tmp_path, request.param) as stand:
        yield stand


@pytest.fixture
async def client(stand: DialectStand) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, as a user sets it up."""
    async with AsyncOpenAI(
        api_key=stand.gateway.key, base_url=stand.gateway.base_url, max_retries=0
    ) as client:
        yield client
