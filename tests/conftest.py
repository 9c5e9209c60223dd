"""Settings and fixtures of all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.stand import expected_skips
from tests.stand.databases import DATABASE_KINDS, empty_postgres, running_postgres

pytest_addoption = expected_skips.pytest_addoption
pytest_sessionfinish = expected_skips.pytest_sessionfinish
pytest_terminal_summary = expected_skips.pytest_terminal_summary

# No test asserts a wall time, and so neither does a property. In CI a failure must come back when
# it is run again: the same examples each time.
settings.register_profile(
    "pomogator",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
    print_blob=True,
)
settings.load_profile("pomogator")


def pytest_collection_finish() -> None:
    """Exempt the collected tests, half a million objects, from each collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that lives as long as the tests."""
    with running_postgres() as url:
        yield url


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of an empty PostgreSQL database."""
    async with empty_postgres(postgres_server) as url:
        yield url


@pytest.fixture(params=DATABASE_KINDS)
async def each_database_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of an empty database of each kind; empty for SQLite, which lies in the state."""
    if request.param == "sqlite":
        yield ""
        return
    async with empty_postgres(request.getfixturevalue("postgres_server")) as url:
        yield url
