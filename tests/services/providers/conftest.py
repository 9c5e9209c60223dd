"""Caller of a scripted provider."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.providers.http import HttpClient
from tests.services.providers.word_dialect import Caller
from tests.stand.upstream import (
    FakeUpstream,
)


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    """Caller of a scripted provider. Both are closed at the end of the test."""
    async with FakeUpstream() as upstream:
        http = HttpClient()
        yield Caller(upstream, http)
        await http.close()
