"""A PostgreSQL of one's own, for what runs without pytest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager

from tests.services.conftest import empty_postgres, running_postgres


@asynccontextmanager
async def empty_database(*, wanted: bool) -> AsyncIterator[str]:
    """The URL of an empty database; without being wanted, nothing."""
    if not wanted:
        yield ""
        return
    with contextmanager(running_postgres)() as server:
        async with empty_postgres(server) as url:
            yield url
