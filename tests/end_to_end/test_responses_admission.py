"""Responses are admitted, metered, limited and replayed like chat completions."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from services.config import LimitConfig
from tests.stand.billing_stand import (
    COST_NANO,
    FORMS,
    MODEL,
    NANO,
    BillingStand,
    billing_stand,
)
from tests.stand.clock import FakeClock
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.response import ReadResponse, read


async def ask(
    stand: BillingStand, key: str, form: str = "json", path: str = "", **headers: str
) -> ReadResponse:
    """One response to a text."""
    body: Any = {"model": MODEL, "input": "Hello", "stream": form == "sse"}
    if not path:
        body["max_output_tokens"] = 20
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{stand.gateway.base_url}/responses{path}"
    async with stand.gateway.http.post(
        url, json=body, headers={"Authorization": f"Bearer {key}", **sent}
    ) as response:
        return await read(response)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
async def test_the_charge_is_price_times_usage(
    tmp_path: Path, transport: Transport, form: str
) -> None:
    """The charge is exact, as for a chat completion. A count is free."""
    async with billing_stand(tmp_path, transport=transport) as stand:
        key = await stand.open()
        answer = await ask(stand, key, form)

        assert answer.status == 200
        shown = answer.headers.get("x-pomogator-cost")
        assert shown == (f"{Decimal(COST_NANO) / NANO:f}" if form == "json" else None)
        counted = await ask(stand, key, path="/input_tokens")
        assert counted.json["input_tokens"] > 0
        assert await stand.balance(key) == NANO - COST_NANO


@pytest.mark.parametrize("form", FORMS)
async def test_a_response_without_money_is_refused(tmp_path: Path, form: str) -> None:
    """The refusal has OpenAI's code, and SDKs do not retry."""
    async with billing_stand(tmp_path) as stand:
        key = await stand.open(credit_nano=COST_NANO - 1)
        refused = await ask(stand, key, form)
        assert (refused.status, refused.json["error"]["code"]) == (402, "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("form", FORMS)
async def test_a_limit_is_shared_with_chat_completions(tmp_path: Path, form: str) -> None:
    """The refusal says when to retry."""
    rules = [LimitConfig(key="*", rpm=2)]
    async with billing_stand(tmp_path, limits=rules, clock=FakeClock()) as stand:
        key = await stand.open()
        assert (await stand.ask(key, form)).status == 200
        assert (await ask(stand, key, form)).status == 200
        refused = await ask(stand, key, form)
        assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) >= 1


async def test_a_repeated_call_is_made_once(tmp_path: Path) -> None:
    """An equal call with the same idempotency key gets the same output."""
    async with billing_stand(tmp_path) as stand:
        key = await stand.open()
        first = await ask(stand, key, Idempotency_Key="one")
        again = await ask(stand, key, Idempotency_Key="one")
        assert first.json["output"] == again.json["output"]
        assert first.json["id"] == again.json["id"]
        assert len(stand.upstream.requests) == 1
        assert await stand.balance(key) == NANO - COST_NANO
