"""Idempotency over each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.completions.idempotency import Idempotency
from services.storage.base import Database
from services.storage.leases import renew_lease
from tests.services.completions.idempotent_calls import DAY_MS, OWNER, PEPPER


@pytest.fixture
async def once(database: Database) -> AsyncIterator[Idempotency]:
    """Idempotency of a process whose lease holds."""
    await database.write(renew_lease, OWNER, DAY_MS)
    async with Idempotency(database, OWNER, PEPPER) as once:
        yield once
