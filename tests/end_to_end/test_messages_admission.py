"""Messages are admitted, metered, limited and replayed like chat completions."""

from __future__ import annotations

import logging
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

MESSAGES = [{"role": "user", "content": "Hello"}]


async def ask(
    stand: BillingStand, key: str, form: str = "json", path: str = "", **more: Any
) -> ReadResponse:
    """One message; of `more`, names with a capital letter are headers."""
    headers = {name.replace("_", "-"): more.pop(name) for name in list(more) if name[0].isupper()}
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 20, "stream": form == "sse", **more}
    url = f"{stand.gateway.base_url}/messages{path}"
    async with stand.gateway.http.post(
        url, json=body, headers={"x-api-key": key, **headers}
    ) as response:
        return await read(response)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
async def test_the_charge_is_price_times_usage(
    tmp_path: Path, transport: Transport, form: str
) -> None:
    """The charge is exact, as for a chat completion."""
    async with billing_stand(tmp_path, transport=transport) as stand:
        key = await stand.open()
        answer = await ask(stand, key, form)

        assert answer.status == 200
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
        shown = answer.headers.get("x-pomogator-cost")
        assert shown == (f"{Decimal(COST_NANO) / NANO:f}" if form == "json" else None)
        assert await stand.balance(key) == NANO - COST_NANO


async def test_a_count_is_free(tmp_path: Path) -> None:
    """It needs no balance, but a key that may use the model."""
    async with billing_stand(tmp_path) as stand:
        key = await stand.open(credit_nano=0)
        counted = await ask(stand, key, path="/count_tokens")
        assert counted.json["input_tokens"] > 0
        assert await stand.balance(key) == 0

        other = await stand.open(models=["house/free"])
        refused = await ask(stand, other, path="/count_tokens")
        assert (refused.status, refused.json["error"]["type"]) == (403, "permission_error")
        refused = await ask(stand, key[:-4] + "0000", path="/count_tokens")
        assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")
        assert stand.upstream.requests == []


@pytest.mark.parametrize("form", FORMS)
async def test_a_message_without_money_is_a_billing_error(tmp_path: Path, form: str) -> None:
    """Anthropic's SDKs do not retry it."""
    async with billing_stand(tmp_path) as stand:
        key = await stand.open(credit_nano=COST_NANO - 1)
        refused = await ask(stand, key, form)
        assert (refused.status, refused.json["error"]["type"]) == (402, "billing_error")
        assert refused.headers["x-should-retry"] == "false"
        assert refused.json["request_id"] == refused.headers["request-id"]


@pytest.mark.parametrize("form", FORMS)
async def test_a_limit_is_shared_with_chat_completions(tmp_path: Path, form: str) -> None:
    """The refusal says when to retry."""
    rules = [LimitConfig(key="*", rpm=2)]
    async with billing_stand(tmp_path, limits=rules, clock=FakeClock()) as stand:
        key = await stand.open()
        assert (await stand.ask(key, form)).status == 200
        assert (await ask(stand, key, form)).status == 200
        refused = await ask(stand, key, form)
        assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("form", FORMS)
async def test_a_repeated_call_is_made_once(tmp_path: Path, form: str) -> None:
    """An equal call with the same idempotency key gets the same answer."""
    async with billing_stand(tmp_path) as stand:
        key = await stand.open()
        first = await ask(stand, key, form, Idempotency_Key="one")
        again = await ask(stand, key, form, Idempotency_Key="one")
        assert first.body == again.body
        assert len(stand.upstream.requests) == 1
        other = await ask(stand, key, form, Idempotency_Key="one", max_tokens=21)
        assert (other.status, other.json["error"]["type"]) == (422, "invalid_request_error")
        assert await stand.balance(key) == NANO - COST_NANO


async def test_dropped_parameters_have_a_note(tmp_path: Path) -> None:
    """In strict mode they are refused."""
    async with billing_stand(tmp_path) as stand:
        key = await stand.open()
        answer = await ask(stand, key, container="c")
        assert "container" in answer.headers["x-pomogator-notes"]
        refused = await ask(stand, key, container="c", X_Pomogator_Mode="strict")
        assert (refused.status, refused.json["error"]["type"]) == (400, "invalid_request_error")
        assert "container" in refused.json["error"]["message"]


async def test_the_access_log_has_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has the model, as for every surface."""
    async with billing_stand(tmp_path) as stand:
        key = await stand.open()
        with caplog.at_level(logging.INFO, "gateway.access"):
            await ask(stand, key)
    lines = [vars(each) for each in caplog.records if each.getMessage() == "request.ended"]
    assert [(line["path"], line["model"]) for line in lines if line["status"] == 200][-1] == (
        "/v1/messages",
        MODEL,
    )
