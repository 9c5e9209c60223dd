"""Charges, balances and limits as callers and operators see them, through a whole gateway."""

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

from services.admission.leases import JITTER
from services.config import BillingConfig, LimitConfig
from tests.stand.billing_stand import (
    COST_NANO,
    FORMS,
    FREE,
    MODEL,
    NANO,
    PRICE,
    USAGE,
    BillingStand,
    bearer,
    billing_stand,
    piece,
)
from tests.stand.clock import FakeClock
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.response import ReadResponse
from tests.stand.upstream import CUT, SSE_HEAD, STALL, json_answer, sse

EVERY_KEY = "*"
CENT = {"request_usd": Decimal("0.01")}
"""A price for each call, which is known before the answer: the hold equals the charge."""


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[BillingStand]:
    """A gateway with prices."""
    async with billing_stand(tmp_path) as stand:
        yield stand


def parts(error: dict[str, Any], *names: str) -> dict[str, Any]:
    """Some members of an error."""
    return {name: error[name] for name in names}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
async def test_cost_is_price_times_usage(tmp_path: Path, transport: Transport, form: str) -> None:
    """The cost is exact to the nano-dollar: in usage, a whole answer's header and the ledger."""
    async with billing_stand(tmp_path, transport=transport) as stand:
        key = await stand.open()
        answer = await stand.ask(key, form)

        assert answer.usage["cost"] == COST_NANO / NANO
        shown = answer.headers.get("x-pomogator-cost")
        assert shown == (f"{Decimal(COST_NANO) / NANO:f}" if form == "json" else None)
        assert await stand.balance(key) == NANO - COST_NANO


async def test_cost_is_in_the_usage_only_on_request(stand: BillingStand) -> None:
    """Other clients get OpenAI's usage; the header has the cost in any case."""
    key = await stand.open()
    answer = await stand.ask(key, usage={"include": False})

    assert "cost" not in answer.usage
    assert answer.headers["x-pomogator-cost"] == "0.0010972"


async def test_markup_is_on_top_of_prices(stand: BillingStand) -> None:
    """A changed markup applies from the next call on, and the cost is rounded up once."""
    key = await stand.open()
    await stand.ask(key)
    await stand.accounts.UpdateAccount(
        accounts.UpdateAccountRequest(
            account=accounts.Account(account="acme", markup_basis_points=1),
            update_mask={"paths": ["markup_basis_points"]},  # type: ignore[arg-type]
        )
    )
    answer = await stand.ask(key)

    with_markup = -(-COST_NANO * 10_001 // 10_000)
    assert answer.usage["cost"] == with_markup / NANO
    assert await stand.balance(key) == NANO - COST_NANO - with_markup


@pytest.mark.parametrize("form", FORMS)
async def test_a_call_without_money_is_402_and_not_retried(stand: BillingStand, form: str) -> None:
    """Without enough balance no request reaches the provider, and SDKs do not retry."""
    key = await stand.open(credit_nano=COST_NANO - 1)
    refused = await stand.ask(key, form)

    assert refused.status == 402
    assert parts(refused.error, "message", "type") == {
        "message": "Insufficient balance",
        "type": "insufficient_quota",
    }
    assert parts(refused.error, "param", "code") == {"param": None, "code": "insufficient_quota"}
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert not stand.upstream.requests
    assert await stand.balance(key) == COST_NANO - 1


@pytest.mark.parametrize("form", FORMS)
async def test_429_has_retry_after(tmp_path: Path, form: str) -> None:
    """Calls are refused for that time, less its jitter, which spreads callers; then admitted."""
    clock = FakeClock()
    rules = [LimitConfig(key=EVERY_KEY, rpm=2)]
    async with billing_stand(tmp_path, limits=rules, clock=clock) as stand:
        key = await stand.open()
        for remaining in ("1", "0"):
            answer = await stand.ask(key, form)
            assert answer.headers["x-ratelimit-remaining-requests"] == remaining
        refused = await stand.ask(key, form)

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
        assert (await stand.ask(key, form)).status == 429
        clock.advance(wait_ms / 1000 - 29.999)
        assert (await stand.ask(key, form)).status == 200


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", FORMS)
async def test_a_balance_for_ten_calls_admits_ten(
    tmp_path: Path, transport: Transport, form: str
) -> None:
    """Of a hundred calls at once exactly ten are admitted, and the other ninety get 402."""
    async with billing_stand(tmp_path, transport=transport, price=CENT) as stand:
        key = await stand.open(credit_nano=NANO // 10)
        answers = await asyncio.gather(*(stand.ask(key, form) for _ in range(100)))

        assert Counter(answer.status for answer in answers) == {200: 10, 402: 90}
        assert len(stand.upstream.requests) == 10
        assert await stand.balance(key) == 0
        assert (await stand.counts())["settled"] == 10


@pytest.mark.parametrize("n", [1, 2])
async def test_a_hold_covers_the_reasoning_that_is_sent_on_top(
    tmp_path: Path, each_database_url: str, n: int
) -> None:
    """Of 200 calls at once that ask for one token, and send 1,025, none overspends."""
    price = {**PRICE, "thinking": "budget"}
    async with billing_stand(tmp_path, price=price, database_url=each_database_url) as stand:
        stand.usage |= {"completion_tokens": n * 1025, "total_tokens": n * 1025 + 11}
        key = await stand.open(credit_nano=NANO // 10)
        fields: dict[str, Any] = {"max_tokens": 1, "reasoning_effort": "high", "n": n}
        answers = await asyncio.gather(*(stand.ask(key, **fields) for _ in range(200)))

        made = Counter(answer.status for answer in answers)[200]
        assert made in range(1, NANO // 10 // (n * 1025 * 15_000) + 1)
        assert {request.json()["max_tokens"] for request in stand.upstream.requests} == {1025}
        assert await stand.balance(key) >= 0


async def test_a_paid_call_without_a_limit_is_sent_with_one(tmp_path: Path) -> None:
    """The limit that its hold is for; calls that cost nothing are sent as they are."""
    async with billing_stand(tmp_path) as stand:
        key = await stand.open()
        for caller, model in ((key, MODEL), (key, FREE), (stand.gateway.key, MODEL)):
            await stand.ask(caller, model=model, max_tokens=None)
        answer = await stand.ask(key, max_tokens=None)

        limits = [request.json().get("max_tokens") for request in stand.upstream.requests]
        assert limits == [4096, None, None, 4096]
        assert "max_tokens" in answer.headers["x-pomogator-notes"]


@pytest.mark.parametrize("most", [100, 20_000])
async def test_that_limit_is_the_models_own_where_it_is_known(tmp_path: Path, most: int) -> None:
    """It changes nothing for the answer."""
    async with billing_stand(tmp_path, price={**PRICE, "max_output_tokens": most}) as stand:
        await stand.ask(await stand.open(), max_tokens=None)

        assert stand.upstream.requests[0].json()["max_tokens"] == most


async def test_unused_tokens_are_given_back(tmp_path: Path) -> None:
    """A call draws the most tokens that it may take from the limit; unused ones are returned."""
    rules = [LimitConfig(key=EVERY_KEY, tpm=1000)]
    async with billing_stand(tmp_path, limits=rules, clock=FakeClock()) as stand:
        key = await stand.open()
        first = await stand.ask(key, max_tokens=900)
        await stand.settled(key)
        second = await stand.ask(key, max_tokens=900)

        assert (first.status, second.status) == (200, 200)
        assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100
        before, after = (int(each.headers["x-ratelimit-remaining-tokens"])
                         for each in (first, second))  # fmt: skip
        assert before - after == USAGE["total_tokens"]


async def test_tokens_beyond_the_estimate_are_drawn(tmp_path: Path) -> None:
    """A call that used more tokens than estimated draws the rest from the limit afterwards."""
    rules = [LimitConfig(key=EVERY_KEY, tpm=1000)]
    async with billing_stand(tmp_path, limits=rules, clock=FakeClock()) as stand:
        stand.usage |= {"prompt_tokens": 1500, "total_tokens": 1505}
        key = await stand.open()
        assert (await stand.ask(key)).status == 200
        await stand.settled(key)
        refused = await stand.ask(key, max_tokens=1)

        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 30


@pytest.mark.parametrize("form", FORMS)
async def test_impossible_usage_is_not_charged(stand: BillingStand, form: str) -> None:
    """A call with at most 50 tokens is not charged a million, whatever the provider reports."""
    stand.usage |= {"completion_tokens": 1_000_000, "total_tokens": 1_000_011}
    key = await stand.open()

    answer = await stand.ask(key, form, max_tokens=50)

    assert answer.status == 200
    assert 0 < answer.usage["completion_tokens"] <= 50
    assert await stand.balance(key) == NANO - round(answer.usage["cost"] * NANO)


@pytest.mark.parametrize("form", FORMS)
async def test_the_concurrency_limit_frees_its_slot_at_the_end(
    stand: BillingStand, form: str
) -> None:
    """A second call beside the first is refused, and admitted when the first is over."""
    key = await stand.open(concurrent_call_count=1)
    gate = asyncio.Event()
    stand.before = [gate]
    running = asyncio.create_task(stand.ask(key, form))
    await stand.upstream.request()
    refused = await stand.ask(key, form)
    gate.set()

    assert (await running).status == 200
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after-ms"]) > 0
    await stand.settled(key)
    assert (await stand.ask(key, form)).status == 200


async def test_a_disconnected_client_pays_for_what_it_got(stand: BillingStand) -> None:
    """Tokens generated before that are counted and charged once; the rest of the hold is freed."""
    key = await stand.open()
    stand.script = [SSE_HEAD, sse(piece("Hello "), piece("dear "), piece("world")), STALL]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with stand.gateway.http.post(
        f"{stand.gateway.base_url}/chat/completions", json=body, headers=bearer(key)
    ) as response:
        async for line in response.content:
            if b"world" in line:
                break
        response.close()
    await (await stand.upstream.request()).left.wait()
    counts = await stand.ended(1)

    assert (counts["settled"], counts["voided"]) == (1, 0)
    usage = (await stand.get(key, "/usage"))["usage"]
    assert [each["request_count"] for each in usage] == ["1"]
    assert 0 < int(usage[0]["completion_token_count"]) <= 5
    assert await stand.balance(key) == NANO - int(usage[0]["cost_nano_usd"])
    assert int(usage[0]["cost_nano_usd"]) > 1_000_000


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
    async with billing_stand(tmp_path, limits=rules, clock=FakeClock()) as stand:
        key = await stand.open()
        stand.script = script
        for number in (1, 2):
            assert (await stand.ask(key, form)).status == status
            counts = await stand.ended(number)

        assert (counts["settled"], counts["voided"]) == (0, 2)
        assert await stand.balance(key) == NANO


async def test_a_truncated_stream_is_charged_once(stand: BillingStand) -> None:
    """Tokens that arrived before the cut are charged: the provider generated them."""
    key = await stand.open()
    stand.script = [SSE_HEAD, sse(piece("Hello "), piece("world")), CUT]
    answer = await stand.ask(key, "sse")

    assert answer.code == "upstream_disconnected"
    counts = await stand.ended(1)
    assert (counts["settled"], counts["voided"]) == (1, 0)
    assert 0 < NANO - await stand.balance(key) < COST_NANO


async def refused_with(stand: BillingStand, key: str, **fields: Any) -> tuple[int, Any]:
    """The status and the code of a refusal, for which no request reaches the provider."""
    sent = len(stand.upstream.requests)
    refused: ReadResponse = await stand.ask(key, **fields)
    assert len(stand.upstream.requests) == sent
    return refused.status, refused.error["code"]


async def test_a_key_for_other_models_is_403(stand: BillingStand) -> None:
    """A key may be restricted to some models."""
    key = await stand.open(models=[FREE])

    assert await refused_with(stand, key) == (403, "model_not_allowed")
    assert (await stand.ask(key, model=FREE)).status == 200


async def test_a_key_is_valid_until_it_expires(tmp_path: Path) -> None:
    """A key is accepted before its expire time, and refused from then on."""
    clock = FakeClock()
    async with billing_stand(tmp_path, clock=clock) as stand:
        key = await stand.open(expire_time=Timestamp(seconds=int(clock.time()) + 60))
        clock.advance(59.9)
        assert (await stand.ask(key)).status == 200
        await stand.settled(key)
        clock.advance(0.1)

        assert await refused_with(stand, key) == (401, "key_expired")


async def test_a_revoked_key_is_401_at_once(stand: BillingStand) -> None:
    """A key is refused as soon as `RevokeKey` has returned."""
    await stand.open()
    made = await stand.make_key()
    assert (await stand.ask(made.secret)).status == 200
    await stand.keys.RevokeKey(keys.RevokeKeyRequest(key_id=made.key.key_id))

    assert await refused_with(stand, made.secret) == (401, "key_revoked")


async def test_a_monthly_budget_ends_with_the_month(tmp_path: Path) -> None:
    """A key may have a monthly budget: calls over it are refused until the next month."""
    clock = FakeClock()
    async with billing_stand(tmp_path, price=CENT, clock=clock) as stand:
        key = await stand.open(monthly_nano_usd=2 * NANO // 100)
        for _ in range(2):
            assert (await stand.ask(key)).status == 200
            await stand.settled(key)
        refused = await stand.ask(key)

        assert (refused.status, refused.error["code"]) == (429, "budget_exceeded")
        assert refused.error["type"] == "insufficient_quota"
        assert refused.headers["x-should-retry"] == "false"
        clock.advance(31 * 86_400)
        assert (await stand.ask(key)).status == 200


async def test_a_model_without_a_price_is_free_or_refused(tmp_path: Path) -> None:
    """A model without a price is refused, unless the configuration says that it is free."""
    free = BillingConfig(unpriced="free")
    async with billing_stand(tmp_path / "free", billing=free) as stand:
        key = await stand.open(credit_nano=0)
        answer = await stand.ask(key, model=FREE)
        assert (answer.status, answer.usage["cost"]) == (200, 0)
    async with billing_stand(tmp_path / "refused", billing=BillingConfig()) as stand:
        key = await stand.open()
        assert await refused_with(stand, key, model=FREE) == (400, "model_not_found")
        assert await listed(stand, key) == [MODEL]


async def test_unlimited_accounts_may_use_models_without_a_price(tmp_path: Path) -> None:
    """Keys without a budget may use them; a budget cannot be enforced without a price."""
    async with billing_stand(tmp_path, billing=BillingConfig()) as stand:
        request = accounts.CreateAccountRequest(account="rich", unlimited=True)
        await stand.accounts.CreateAccount(request)
        rich = (await stand.make_key("rich")).secret
        budgeted = (await stand.make_key("rich", monthly_nano_usd=NANO)).secret
        poor = await stand.open()

        assert (await stand.ask(rich, model=FREE)).status == 200
        assert await listed(stand, rich) == [FREE, MODEL]
        for key in (poor, budgeted):
            assert await refused_with(stand, key, model=FREE) == (400, "model_not_found")
            assert await listed(stand, key) == [MODEL]


SEARCH = {"type": "live_search", "sources": ["web"]}
SEARCH_FIELDS: dict[str, Any] = {"tools": [SEARCH], "web_search_options": {}}


async def test_tools_of_the_provider_are_for_accounts_without_a_limit(tmp_path: Path) -> None:
    """Their price is unknown, so that no hold covers it; the configuration may give them away."""
    allowed = {"pass_through": ("live_search", "web_search_options")}
    for rule, sent in (("refuse", (True, False, False)), ("free", (True, True, True))):
        billing = BillingConfig(unpriced="free", provider_tools=rule)  # type: ignore[arg-type]
        async with billing_stand(tmp_path / rule, billing=billing, channel=allowed) as stand:
            request = accounts.CreateAccountRequest(account="rich", unlimited=True)
            await stand.accounts.CreateAccount(request)
            rich = (await stand.make_key("rich")).secret
            budgeted = (await stand.make_key("rich", monthly_nano_usd=NANO)).secret
            for key in (rich, budgeted, await stand.open()):
                answer = await stand.ask(key, **SEARCH_FIELDS)
                assert answer.status == 200
            bodies = [each.json() for each in stand.upstream.requests]

            assert tuple("tools" in body for body in bodies) == sent
            assert tuple("web_search_options" in body for body in bodies) == sent
            assert ("web_search_options" in answer.headers.get("x-pomogator-notes", "")) != sent[-1]


async def listed(stand: BillingStand, key: str) -> list[str]:
    """Return the models that are listed to a key."""
    url = f"{stand.gateway.base_url}/models"
    async with stand.gateway.http.get(url, headers=bearer(key)) as response:
        document = await response.json()
    return [model["id"] for model in document["data"]]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_callers_see_what_the_ledger_has(tmp_path: Path, transport: Transport) -> None:
    """Balance and usage agree with the operators' report and with the transfers."""
    async with billing_stand(tmp_path, transport=transport) as stand:
        key = await stand.open()
        for form in FORMS:
            assert (await stand.ask(key, form)).status == 200
        assert (await stand.ask(key, model=FREE)).status == 200
        await stand.settled(key)

        balance = await stand.get(key, "/balance")
        used = await stand.get(key, "/usage", group_by="USAGE_GROUPING_MODEL")
        report = await stand.ledger.ReportUsage(ledger.ReportUsageRequest(account="acme"))
        moved = await stand.ledger.ListTransfers(ledger.ListTransfersRequest(account="acme"))

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


async def test_usage_is_queried_by_parameters(stand: BillingStand) -> None:
    """Time spans, groups and pages are parameters; an invalid one is refused by name."""
    key = await stand.open()
    for model in (MODEL, FREE):
        await stand.ask(key, model=model)

    first = await stand.get(key, "/usage", page_size="1")
    rest = await stand.get(key, "/usage", page_token=first["next_page_token"])
    future = await stand.get(key, "/usage", start_time="2200-01-01T00:00:00Z")
    assert [each["model"] for each in (*first["usage"], *rest["usage"])] == [FREE, MODEL]
    assert (rest["next_page_token"], future["usage"]) == ("", [])
    for query in ({"page_size": "-1"}, {"start_time": "soon"}, {"account": "other"}):
        async with stand.gateway.http.get(
            f"{stand.gateway.base_url}/usage", params=query, headers=bearer(key)
        ) as response:
            assert response.status == 400
            assert (await response.json())["error"]["param"] == next(iter(query))


async def test_an_unlimited_account_may_be_overdrawn(stand: BillingStand) -> None:
    """An unlimited account may spend more than it has, and its balance turns negative."""
    assert (await stand.ask(stand.gateway.key)).status == 200
    balance = await stand.get(stand.gateway.key, "/balance")

    assert (balance["unlimited"], balance["balance_nano_usd"]) == (True, str(-COST_NANO))
