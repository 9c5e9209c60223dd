"""Every test here runs on both event loops that the service may run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from services.providers.http import HttpClient
from tests.stand.upstream import FakeUpstream


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The two loops."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    """A server that plays scripts."""
    async with FakeUpstream() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    """A client. Nothing may be left of it."""
    http = HttpClient()
    yield http
    await http.close()
    assert not any(pool._open for pool in http.pools.values())
