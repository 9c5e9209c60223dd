"""State machine, the short form: a few sequences in every run of the tests."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.nightly.state_machine import check
from tests.stand.deployment import PLANS, Layout, database_for
from tests.stand.process_stand import process_stand

EXAMPLES = int(os.environ.get("POMOGATOR_EXAMPLES", "2"))
STEPS = 20


@pytest.mark.timeout(180 + 60 * EXAMPLES)
@pytest.mark.parametrize("layout", ["edges", "fleet"])
async def test_money_is_as_the_model_has_it(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """Four edges before one service on SQLite; four services on PostgreSQL: I1 to I8 hold."""
    plan, loop = PLANS[layout], asyncio.get_running_loop()
    async with (
        database_for(plan, request) as url,
        process_stand(tmp_path / "site", plan, url) as stand,
    ):
        await asyncio.to_thread(check, stand, loop, examples=EXAMPLES, steps=STEPS)
