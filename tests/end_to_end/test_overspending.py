"""Calls that cost more than they hold: they take more of the balance, and end when it is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.admission.ticket import STEP_TOKENS
from tests.stand.billing_stand import NANO, PRICE, USAGE, BillingStand, billing_stand, piece
from tests.stand.configuration import configuration
from tests.stand.deployment import PLANS, Layout, connected_client, database_for, running_deployment
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.upstream import CUT, LAST_CHUNK, SSE_HEAD, FakeUpstream, Request, Script, sse

PIECE = "five " * 80
"""A hundred tokens, as the gateway counts."""
PIECE_NANO = 100 * 15_000
STEP_NANO = STEP_TOKENS * 15_000
ENDLESS = 400
"""Pieces of an answer that is far longer than its limit."""

CALLS = 200
SHORT = {**USAGE, "completion_tokens": 20, "total_tokens": 31}


def script(pieces: int, usage: Any = SHORT) -> Script:
    """A stream of pieces, of which each is read by itself, with a usage that says less."""

    async def apart(line: Any) -> None:
        for _ in range(pieces):
            line.writer.write(sse(piece(PIECE)))
            await line.writer.drain()
            await asyncio.sleep(0)

    return [SSE_HEAD, apart, sse(piece(None), {"choices": [], "usage": usage}, "[DONE]"), CUT]


async def begin(stand: BillingStand, credit_nano: int) -> str:
    """A key of an account with this credit."""
    return await stand.open(credit_nano=credit_nano)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_ends_when_the_balance_is_gone(
    tmp_path: Path, each_database_url: str, transport: Transport
) -> None:
    """What was passed on is paid, and the balance is overspent by less than a step."""
    async with billing_stand(
        tmp_path, transport=transport, database_url=each_database_url
    ) as stand:
        stand.script = script(ENDLESS)
        credit = 1_000_000 + 2 * STEP_NANO
        key = await begin(stand, credit)
        answer = await stand.ask(key, "sse")
        await (await stand.upstream.request()).left.wait()

        assert (answer.status, answer.code) == (200, "insufficient_quota")
        charged = credit - await stand.balance(key)
        assert charged >= answer.text.count("five ") * 5 // 4 * 15_000
        assert credit - STEP_NANO <= charged <= credit + STEP_NANO
        assert (await stand.ask(key)).status == 402


async def test_a_whole_answer_ends_when_the_balance_is_gone(
    tmp_path: Path, each_database_url: str
) -> None:
    """Where it is read as a stream from the provider."""
    price = {**PRICE, "thinking": "effort", "thinking_default": "always", "thinking_shown": True}
    async with billing_stand(tmp_path, price=price, database_url=each_database_url) as stand:
        stand.script = script(ENDLESS)
        credit = 1_000_000 + 2 * STEP_NANO
        key = await begin(stand, credit)
        answer = await stand.ask(key, "json")

        assert (answer.status, answer.error["code"]) == (402, "insufficient_quota")
        assert -STEP_NANO <= await stand.balance(key) <= STEP_NANO


@pytest.mark.parametrize("pieces", [1, 3, 40])
async def test_a_stream_with_money_goes_on(
    tmp_path: Path, each_database_url: str, pieces: int
) -> None:
    """It is charged as if it had held all from the beginning, and counts as one call."""
    async with billing_stand(tmp_path, database_url=each_database_url) as stand:
        usage = {**USAGE, "completion_tokens": 0, "total_tokens": 0, "prompt_tokens": 0}
        stand.script = script(pieces, usage)
        key = await begin(stand, NANO)
        answer = await stand.ask(key, "sse")
        (row,) = (await stand.get(key, "/usage"))["usage"]

        assert (answer.status, answer.text.count("five ")) == (200, pieces * 80)
        assert row["request_count"] == "1"
        assert NANO - await stand.balance(key) == int(row["cost_nano_usd"])
        assert int(row["cost_nano_usd"]) > 1_000_000 + pieces * PIECE_NANO


async def test_a_budget_ends_a_stream_of_an_unlimited_account(
    tmp_path: Path, each_database_url: str
) -> None:
    """Money of the key is money as well."""
    async with billing_stand(tmp_path, database_url=each_database_url) as stand:
        stand.script = script(ENDLESS)
        budget = 1_000_000 + 2 * STEP_NANO
        key = await stand.open(credit_nano=100 * NANO, monthly_nano_usd=budget)
        answer = await stand.ask(key, "sse")

        assert answer.code == "budget_exceeded"
        assert 100 * NANO - await stand.balance(key) <= budget + STEP_NANO


async def test_an_answer_within_its_limit_needs_no_more_than_its_hold(
    tmp_path: Path, each_database_url: str
) -> None:
    """A balance for exactly one call makes it, however its tokens arrive."""
    async with billing_stand(tmp_path, database_url=each_database_url) as stand:
        tokens = 1_000
        usage = {**USAGE, "completion_tokens": tokens, "total_tokens": 11 + tokens}
        stand.script = script(tokens // 100, usage)
        prompt = 3 + 8  # Of "Hello", and of its message.
        key = await begin(stand, 1_000_000 + prompt * 3_000 + tokens * 15_000)
        answer = await stand.ask(key, "sse", max_tokens=tokens)

        assert (answer.status, answer.code) == (200, None)
        assert await stand.balance(key) == 4 * 2_700


def play(_: Request) -> Script:
    """An answer that ignores its limit, and says so."""
    usage = {**USAGE, "completion_tokens": 6_000, "total_tokens": 6_011}
    rest = sse(piece(None), {"choices": [], "usage": usage}, "[DONE]")
    pieces = [sse(piece(PIECE)) for _ in range(60)]
    return [SSE_HEAD, *pieces, rest, LAST_CHUNK]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("layout", PLANS)
async def test_calls_at_once_overspend_by_a_step_each_at_most(
    tmp_path: Path, layout: Layout, request: pytest.FixtureRequest
) -> None:
    """Of 200 streams over all edges, each far beyond its limit, on money for a few of them."""
    plan = PLANS[layout]
    async with FakeUpstream() as upstream, database_for(plan, request) as url:
        upstream.play(play)
        prices = {"completion_usd_per_mtok": 15}
        config = configuration(upstream.url, prices=prices)
        async with (
            running_deployment(tmp_path / "site", plan, config, url) as deployment,
            connected_client(deployment) as client,
        ):
            first = client.operators[0]
            _, secret = await first.create_key("acme")
            credit = CALLS // 2 * 20 * 15_000 + 3 * STEP_NANO
            await first.credit("acme", credit, "opening")
            body = {"model": "house/model", "max_tokens": 20, "stream": True,
                    "messages": [{"role": "user", "content": "Hello"}]}  # fmt: skip
            answers = await asyncio.gather(*(client.ask(n, secret, **body) for n in range(CALLS)))
            await client.all_ended()
            books = await first.account("acme")

            admitted = len(upstream.requests)
            assert 0 < admitted <= CALLS
            assert set(answers) <= {(200, ""), (402, "insufficient_quota")}
            assert books.balance_nano_usd >= -admitted * STEP_NANO
