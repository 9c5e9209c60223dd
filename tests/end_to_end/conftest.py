"""A gateway for each dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from tests.services.conftest import empty_postgres, postgres_server, postgres_url
from tests.stand.provider_gateway import DIALECTS, Talk, talking

__all__ = ["client", "each_database_url", "postgres_server", "postgres_url", "talk"]


@pytest.fixture(params=["sqlite", "postgres"])
async def each_database_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of an empty database of each kind: none for SQLite, which is where the state is."""
    if request.param == "sqlite":
        yield ""
        return
    async with empty_postgres(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture(params=DIALECTS)
async def talk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Talk]:
    """A gateway and a provider that speaks each of the dialects in turn."""
    async with talking(tmp_path, request.param) as talk:
        yield talk


@pytest.fixture
async def client(talk: Talk) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, as a user sets it up."""
    async with AsyncOpenAI(
        api_key=talk.gateway.key, base_url=talk.gateway.base_url, max_retries=0
    ) as client:
        yield client
