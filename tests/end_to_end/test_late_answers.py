"""Charges and limits of calls whose providers do not begin to answer within the gateway's time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.config import LimitConfig
from tests.stand.billing_stand import FORMS, NANO, BillingStand, billing_stand
from tests.stand.upstream import CUT, SSE_HEAD, STALL, Script, head, json_answer, sse

TEXT = "Take your time. " * 10
PROMPT: Any = [{"role": "user", "content": TEXT}]
PROMPT_TOKENS = len(TEXT) // 4 + 4
"""As the gateway counts: a token for four bytes, and four for a message."""
PROMPT_NANO = 1_000_000 + PROMPT_TOKENS * 3_000

HASTY: dict[str, Any] = {"first_token_timeout_s": 0.2}

LATE: Sequence[Script] = (
    [STALL],
    [SSE_HEAD, STALL],
    [SSE_HEAD, sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}), STALL],
    [head(content_length="99", content_type="application/json"), b" ", STALL],
)
"""Nothing; headers; an event without content; white space before a document."""


@asynccontextmanager
async def hasty_stand(
    state: Path, database_url: str = "", **more: Any
) -> AsyncIterator[BillingStand]:
    """A gateway that does not wait long, with a channel that has these keys, too."""
    async with billing_stand(state, database_url=database_url, channel={**HASTY, **more}) as stand:
        yield stand


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("script", LATE)
async def test_a_late_answer_costs_the_prompt_once(
    tmp_path: Path, each_database_url: str, form: str, script: Script
) -> None:
    """However often the provider was asked: it has the prompt, and may bill it."""
    async with hasty_stand(tmp_path, each_database_url) as stand:
        stand.script = script
        key = await stand.open()

        answer = await stand.ask(key, form, messages=PROMPT)
        counts = await stand.ended(1)

        assert (answer.status, answer.code) == (504, "upstream_timeout")
        assert (counts["settled"], counts["voided"]) == (1, 0)
        assert await stand.balance(key) == NANO - PROMPT_NANO


@pytest.mark.parametrize("refusal", [json_answer({}, 400), json_answer({}, 529), CUT])
async def test_a_late_answer_costs_the_prompt_where_the_last_attempt_is_refused(
    tmp_path: Path, refusal: Any
) -> None:
    """The refusal is free, as every refusal is; the attempt before it is not."""
    async with hasty_stand(tmp_path) as stand:
        stand.script = [STALL]
        stand.upstream.play([refusal])
        key = await stand.open()

        answer = await stand.ask(key, messages=PROMPT)
        await stand.ended(1)

        assert answer.status >= 400
        assert len(stand.upstream.requests) == 2
        assert await stand.balance(key) == NANO - PROMPT_NANO


async def test_a_provider_may_bill_nothing_for_late_answers(
    tmp_path: Path, each_database_url: str
) -> None:
    """The channel says so: its answers that were cancelled before they began are free."""
    async with hasty_stand(tmp_path, each_database_url, bills_abandoned=False) as stand:
        stand.script = [STALL]
        key = await stand.open()
        await stand.ask(key, messages=PROMPT)
        counts = await stand.ended(1)

        assert (counts["settled"], counts["voided"]) == (0, 1)
        assert await stand.balance(key) == NANO


@pytest.mark.parametrize("bills", [True, False])
async def test_late_answers_count_against_limits(tmp_path: Path, bills: bool) -> None:
    """The request is not given back, whatever the provider bills."""
    keys = {**HASTY, "bills_abandoned": bills}
    rules = [LimitConfig(key="*", rpm=1)]
    async with billing_stand(tmp_path, limits=rules, channel=keys) as stand:
        stand.script = [STALL]
        key = await stand.open()
        late = await stand.ask(key, messages=PROMPT)
        refused = await stand.ask(key, messages=PROMPT)

        assert (late.status, refused.status) == (504, 429)
