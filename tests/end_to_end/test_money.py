"""What callers and operators see of money, through a whole gateway."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledger

from services.admission.limits import JITTER
from services.config import BillingConfig, LimitConfig
from tests.stand.billing_gateway import (
    COST_NANO,
    FORMS,
    FREE,
    MODEL,
    NANO,
    USAGE,
    Answer,
    Shop,
    bearer,
    piece,
    selling,
)
from tests.stand.clock import FakeClock
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.upstream import CUT, SSE_HEAD, STALL, json_answer, sse

EVERY_KEY = "*"
CENT = {"request_usd": Decimal("0.01")}
"""A price that is known before the answer: a hold is exactly the charge."""


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A gateway with prices."""
    async with selling(tmp_path) as shop:
        yield shop


def parts(error: dict[str, Any], *names: str) -> dict[str, Any]:
    """Some members of an error."""
    return {name: error[name] for name in names}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
async def test_cost_is_price_times_usage(tmp_path: Path, transport: Transport, form: str) -> None:
    """To the last nano-dollar: in the answer, in the header of a whole one, and in the books."""
    async with selling(tmp_path, transport=transport) as shop:
        key = await shop.open()
        answer = await shop.ask(key, form)

        assert answer.usage["cost"] == COST_NANO / NANO
        shown = answer.headers.get("x-pomogator-cost")
        assert shown == (f"{Decimal(COST_NANO) / NANO:f}" if form == "json" else None)
        assert await shop.balance(key) == NANO - COST_NANO


async def test_cost_is_told_only_to_who_asks(shop: Shop) -> None:
    """Other clients get the usage that OpenAI gives; the header says it all the same."""
    key = await shop.open()
    answer = await shop.ask(key, usage={"include": False})

    assert "cost" not in answer.usage
    assert answer.headers["x-pomogator-cost"] == "0.0010972"


async def test_markup_is_on_top_of_prices(shop: Shop) -> None:
    """Changed by the operator, it counts from the next call on, rounded up once."""
    key = await shop.open()
    await shop.ask(key)
    await shop.accounts.UpdateAccount(
        accounts.UpdateAccountRequest(
            account=accounts.Account(account="acme", markup_basis_points=1),
            update_mask={"paths": ["markup_basis_points"]},  # type: ignore[arg-type]
        )
    )
    answer = await shop.ask(key)

    with_markup = -(-COST_NANO * 10_001 // 10_000)
    assert answer.usage["cost"] == with_markup / NANO
    assert await shop.balance(key) == NANO - COST_NANO - with_markup


@pytest.mark.parametrize("form", FORMS)
async def test_402(shop: Shop, form: str) -> None:
    """Without money there is no call, and nobody is to try again by themselves."""
    key = await shop.open(credit_nano=COST_NANO - 1)
    refused = await shop.ask(key, form)

    assert refused.status == 402
    assert parts(refused.error, "message", "type") == {
        "message": "Insufficient balance",
        "type": "insufficient_quota",
    }
    assert parts(refused.error, "param", "code") == {"param": None, "code": "insufficient_quota"}
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert not shop.upstream.requests
    assert await shop.balance(key) == COST_NANO - 1


@pytest.mark.parametrize("form", FORMS)
async def test_429_says_when_to_come_back(tmp_path: Path, form: str) -> None:
    """Refused until then, but for the jitter that spreads callers; admitted then."""
    clock = FakeClock()
    rules = [LimitConfig(key=EVERY_KEY, rpm=2)]
    async with selling(tmp_path, limits=rules, clock=clock) as shop:
        key = await shop.open()
        for remaining in ("1", "0"):
            answer = await shop.ask(key, form)
            assert answer.headers["x-ratelimit-remaining-requests"] == remaining
        refused = await shop.ask(key, form)

        assert refused.status == 429
        assert parts(refused.error, "message", "type") == {
            "message": "Rate limit exceeded",
            "type": "rate_limit_error",
        }
        assert parts(refused.error, "param", "code") == {
            "param": None,
            "code": "rate_limit_exceeded",
        }
        assert refused.headers["x-ratelimit-limit-requests"] == "2"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.headers["x-ratelimit-reset-requests"] == "1m0s"
        wait_ms = int(refused.headers["retry-after-ms"])
        assert int(refused.headers["retry-after"]) == -(-wait_ms // 1000)
        assert 30_000 <= wait_ms <= 30_000 * (1 + JITTER)

        clock.advance(29.999)
        assert (await shop.ask(key, form)).status == 429
        clock.advance(wait_ms / 1000 - 29.999)
        assert (await shop.ask(key, form)).status == 200


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
async def test_balance_for_ten_is_for_ten(tmp_path: Path, transport: Transport, form: str) -> None:
    """Of a hundred calls at once exactly ten are admitted, and the other ninety get 402."""
    async with selling(tmp_path, transport=transport, price=CENT) as shop:
        key = await shop.open(credit_nano=NANO // 10)
        answers = await asyncio.gather(*(shop.ask(key, form) for _ in range(100)))

        assert Counter(answer.status for answer in answers) == {200: 10, 402: 90}
        assert len(shop.upstream.requests) == 10
        assert await shop.balance(key) == 0
        assert (await shop.counts())["settled"] == 10


async def test_tokens_are_reconciled(tmp_path: Path) -> None:
    """The limit is drawn for what a call may take, and given back what it did not."""
    rules = [LimitConfig(key=EVERY_KEY, tpm=1000)]
    async with selling(tmp_path, limits=rules, clock=FakeClock()) as shop:
        key = await shop.open()
        first = await shop.ask(key, max_tokens=900)
        await shop.settled(key)
        second = await shop.ask(key, max_tokens=900)

        assert (first.status, second.status) == (200, 200)
        assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100
        before, after = (int(each.headers["x-ratelimit-remaining-tokens"])
                         for each in (first, second))  # fmt: skip
        assert before - after == USAGE["total_tokens"]


async def test_tokens_beyond_the_estimate_are_drawn(tmp_path: Path) -> None:
    """Who used more than was expected waits for it afterwards."""
    rules = [LimitConfig(key=EVERY_KEY, tpm=1000)]
    async with selling(tmp_path, limits=rules, clock=FakeClock()) as shop:
        shop.usage |= {"prompt_tokens": 1500, "total_tokens": 1505}
        key = await shop.open()
        assert (await shop.ask(key)).status == 200
        await shop.settled(key)
        refused = await shop.ask(key, max_tokens=1)

        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 30


@pytest.mark.parametrize("form", FORMS)
async def test_impossible_usage_is_not_charged(shop: Shop, form: str) -> None:
    """Who allowed 50 tokens does not pay for a million because the provider says so."""
    shop.usage |= {"completion_tokens": 1_000_000, "total_tokens": 1_000_011}
    key = await shop.open()

    answer = await shop.ask(key, form, max_tokens=50)

    assert answer.status == 200
    assert 0 < answer.usage["completion_tokens"] <= 50
    assert await shop.balance(key) == NANO - round(answer.usage["cost"] * NANO)


@pytest.mark.parametrize("form", FORMS)
async def test_calls_at_a_time(shop: Shop, form: str) -> None:
    """A second call beside the first is refused, and admitted when the first is over."""
    key = await shop.open(concurrent_call_count=1)
    gate = asyncio.Event()
    shop.before = [gate]
    running = asyncio.create_task(shop.ask(key, form))
    await shop.upstream.request()
    refused = await shop.ask(key, form)
    gate.set()

    assert (await running).status == 200
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after-ms"]) > 0
    await shop.settled(key)
    assert (await shop.ask(key, form)).status == 200


async def test_client_that_leaves_pays_for_what_it_got(shop: Shop) -> None:
    """What was generated until then is counted and charged once; the rest of the hold is freed."""
    key = await shop.open()
    shop.script = [SSE_HEAD, sse(piece("Hello "), piece("dear "), piece("world")), STALL]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with shop.gateway.http.post(
        f"{shop.gateway.base_url}/chat/completions", json=body, headers=bearer(key)
    ) as response:
        async for line in response.content:
            if b"world" in line:
                break
        response.close()
    await (await shop.upstream.request()).left.wait()
    counts = await shop.ended(1)

    assert (counts["settled"], counts["voided"]) == (1, 0)
    usage = (await shop.get(key, "/usage"))["usage"]
    assert [each["request_count"] for each in usage] == ["1"]
    assert 0 < int(usage[0]["completion_token_count"]) <= 5
    assert await shop.balance(key) == NANO - int(usage[0]["cost_nano_usd"])
    assert int(usage[0]["cost_nano_usd"]) > 1_000_000


@pytest.mark.parametrize("form", FORMS)
async def test_client_that_leaves_before_an_answer_pays_nothing(shop: Shop, form: str) -> None:
    """The provider had not begun: its call is cancelled, and the hold is voided."""
    key = await shop.open()
    shop.script = [STALL]
    asking = asyncio.create_task(shop.ask(key, form))
    request = await shop.upstream.request()
    asking.cancel()
    await request.left.wait()
    counts = await shop.ended(1)

    assert (counts["settled"], counts["voided"]) == (0, 1)
    assert await shop.balance(key) == NANO


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ([json_answer({"error": {"message": "no"}}, 500)], 502),
        ([CUT], 502),
        ([json_answer({"error": {"message": "no"}}, 400)], 400),
    ],
)
async def test_failure_before_the_first_token_is_free(
    tmp_path: Path, form: str, script: Any, status: int
) -> None:
    """The hold is voided, and the call does not count against limits."""
    rules = [LimitConfig(key=EVERY_KEY, rpm=1)]
    async with selling(tmp_path, limits=rules, clock=FakeClock()) as shop:
        key = await shop.open()
        shop.script = script
        for number in (1, 2):
            assert (await shop.ask(key, form)).status == status
            counts = await shop.ended(number)

        assert (counts["settled"], counts["voided"]) == (0, 2)
        assert await shop.balance(key) == NANO


async def test_stream_that_breaks_off_is_charged_once(shop: Shop) -> None:
    """What came before the break is paid for: it was generated."""
    key = await shop.open()
    shop.script = [SSE_HEAD, sse(piece("Hello "), piece("world")), CUT]
    answer = await shop.ask(key, "sse")

    assert answer.body[-1]["error"]["code"] == "upstream_disconnected"
    counts = await shop.ended(1)
    assert (counts["settled"], counts["voided"]) == (1, 0)
    assert 0 < NANO - await shop.balance(key) < COST_NANO


async def refused_with(shop: Shop, key: str, **fields: Any) -> tuple[int, Any]:
    """The status and the code of a refusal, which costs nothing."""
    sent = len(shop.upstream.requests)
    refused: Answer = await shop.ask(key, **fields)
    assert len(shop.upstream.requests) == sent
    return refused.status, refused.error["code"]


async def test_key_for_other_models(shop: Shop) -> None:
    """A key may be for some models only."""
    key = await shop.open(models=[FREE])

    assert await refused_with(shop, key) == (403, "model_not_allowed")
    assert (await shop.ask(key, model=FREE)).status == 200


async def test_key_that_expires(tmp_path: Path) -> None:
    """It opens doors until the very moment."""
    clock = FakeClock()
    async with selling(tmp_path, clock=clock) as shop:
        key = await shop.open(expire_time=Timestamp(seconds=int(clock.time()) + 60))
        clock.advance(59.9)
        assert (await shop.ask(key)).status == 200
        await shop.settled(key)
        clock.advance(0.1)

        assert await refused_with(shop, key) == (401, "key_expired")


async def test_key_that_is_revoked(shop: Shop) -> None:
    """It opens no door once the operator has been answered."""
    await shop.open()
    made = await shop.make_key()
    assert (await shop.ask(made.secret)).status == 200
    await shop.keys.RevokeKey(keys.RevokeKeyRequest(key_id=made.key.key_id))

    assert await refused_with(shop, made.secret) == (401, "key_revoked")


async def test_monthly_budget(tmp_path: Path) -> None:
    """A key may be for so much a month: more is refused until the next one begins."""
    clock = FakeClock()
    async with selling(tmp_path, price=CENT, clock=clock) as shop:
        key = await shop.open(monthly_nano_usd=2 * NANO // 100)
        for _ in range(2):
            assert (await shop.ask(key)).status == 200
            await shop.settled(key)
        refused = await shop.ask(key)

        assert (refused.status, refused.error["code"]) == (429, "budget_exceeded")
        assert refused.error["type"] == "insufficient_quota"
        assert refused.headers["x-should-retry"] == "false"
        clock.advance(31 * 86_400)
        assert (await shop.ask(key)).status == 200


async def test_model_without_a_price(tmp_path: Path) -> None:
    """It is free, unless the configuration says that it is refused."""
    async with selling(tmp_path / "free") as shop:
        key = await shop.open(credit_nano=0)
        answer = await shop.ask(key, model=FREE)
        assert (answer.status, answer.usage["cost"]) == (200, 0)
    refuse = BillingConfig(unpriced="refuse")
    async with selling(tmp_path / "refused", billing=refuse) as shop:
        assert await refused_with(shop, await shop.open(), model=FREE) == (400, "model_not_found")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_callers_see_what_the_ledger_has(tmp_path: Path, transport: Transport) -> None:
    """Balance and usage agree with the operators' report and with the transfers."""
    async with selling(tmp_path, transport=transport) as shop:
        key = await shop.open()
        for form in FORMS:
            assert (await shop.ask(key, form)).status == 200
        assert (await shop.ask(key, model=FREE)).status == 200
        await shop.settled(key)

        balance = await shop.get(key, "/balance")
        used = await shop.get(key, "/usage", group_by="USAGE_GROUPING_MODEL")
        report = await shop.ledger.ReportUsage(ledger.ReportUsageRequest(account="acme"))
        moved = await shop.ledger.ListTransfers(ledger.ListTransfersRequest(account="acme"))

    assert balance == {
        "account": "acme",
        "unlimited": False,
        "balance_nano_usd": str(NANO - 2 * COST_NANO),
        "held_nano_usd": "0",
        "available_nano_usd": str(NANO - 2 * COST_NANO),
    }
    assert sum(each.amount_nano_usd for each in moved.transfers) == NANO - 2 * COST_NANO
    assert [
        (each["model"], each["day"], each["request_count"], each["prompt_token_count"],
         each["cache_read_token_count"], each["completion_token_count"], each["cost_nano_usd"])
        for each in used["usage"]
    ] == [
        (FREE, "", "1", "11", "4", "5", "0"),
        (MODEL, "", "2", "22", "8", "10", str(2 * COST_NANO)),
    ]  # fmt: skip
    assert [int(each["cost_nano_usd"]) for each in used["usage"]] == [
        row.charge_nano_usd for row in report.models
    ]


async def test_usage_is_asked_for_in_the_query(shop: Shop) -> None:
    """Spans, groups and pages; what makes no sense is refused with its name."""
    key = await shop.open()
    for model in (MODEL, FREE):
        await shop.ask(key, model=model)

    first = await shop.get(key, "/usage", page_size="1")
    rest = await shop.get(key, "/usage", page_token=first["next_page_token"])
    future = await shop.get(key, "/usage", start_time="2200-01-01T00:00:00Z")
    assert [each["model"] for each in (*first["usage"], *rest["usage"])] == [FREE, MODEL]
    assert (rest["next_page_token"], future["usage"]) == ("", [])
    for query in ({"page_size": "-1"}, {"start_time": "soon"}, {"account": "other"}):
        async with shop.gateway.http.get(
            f"{shop.gateway.base_url}/usage", params=query, headers=bearer(key)
        ) as response:
            assert response.status == 400
            assert (await response.json())["error"]["param"] == next(iter(query))


async def test_unlimited_account(shop: Shop) -> None:
    """It may spend what it does not have, and its balance says so."""
    assert (await shop.ask(shop.gateway.key)).status == 200
    balance = await shop.get(shop.gateway.key, "/balance")

    assert (balance["unlimited"], balance["balance_nano_usd"]) == (True, str(-COST_NANO))
