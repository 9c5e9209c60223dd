"""b.8, b.11 and b.12: too much at once, races, and what gRPC adds."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import grpc
import pytest
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

from gateway.rpc.service_channel import open_channel
from services.config import BoundsConfig, LimitConfig
from services.routing.budget import RETRIES_PER_S, RETRY_SHARE
from services.rpc.listener import listening
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import (
    BEGIN,
    CHARGE,
    END,
    FINE,
    MODEL,
    STEADY,
    TEXT,
    FaultStand,
    fitting,
)
from tests.stand.upstream import STALL, Request, Script, json_answer

BUSY: Script = [json_answer({"error": {"message": "busy"}}, 503)]
WIRES = pytest.mark.parametrize("wire", [False, True])


@WIRES
async def test_074_too_many_streams(open_stand: OpenStand, wire: bool) -> None:
    """Beyond its bound a process refuses at once, and says when to come back."""
    stand = await open_stand(bounds=BoundsConfig(calls_max=3), wire=wire)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    running = [asyncio.create_task(stand.ask()) for _ in range(3)]
    await stand.until(lambda: len(stand.first.requests) == 3)

    refused = await stand.ask()
    goes_on.set()

    assert (refused.status, refused.code) == (503, "overloaded")
    assert 1 <= float(refused.headers["retry-after-ms"]) / 1000 <= 3
    assert [reply.content for reply in await asyncio.gather(*running)] == [TEXT] * 3
    assert await stand.charged() == (3, 3 * CHARGE)
    assert stand.metric("rejected_total", reason="OVERLOADED") == 1


async def test_074_calls_wait_to_be_taken_in(open_stand: OpenStand) -> None:
    """Where all have waited for long they are refused before anything is looked at, as the key."""
    stand = await open_stand()
    stub = ChatCompletionServiceStub(stand.service.channel())

    async def code(*metadata: tuple[str, str]) -> grpc.StatusCode:
        asked = chat.CreateChatCompletionRequest()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreateChatCompletion(asked, metadata=metadata, timeout=30)
        return refused.value.code()

    codes = []
    async with asyncio.timeout(30):
        while grpc.StatusCode.UNAVAILABLE not in codes:
            codes.append(await code(("x-pomogator-timeout", "1800")))
            await asyncio.sleep(0.05)

    assert set(codes[:-1]) == {grpc.StatusCode.UNAUTHENTICATED}
    assert await code() is grpc.StatusCode.UNAUTHENTICATED
    assert stand.metric("rejected_total", reason="OVERLOADED") == 1


async def test_075_one_key_floods(open_stand: OpenStand) -> None:
    """A key that has as many calls as it may is refused; another one is not."""
    stand = await open_stand(limits=(LimitConfig(key="*", concurrency=2),))
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    running = [asyncio.create_task(stand.ask()) for _ in range(2)]
    await stand.until(lambda: len(stand.first.requests) == 2)
    other = await another_key(stand)

    assert (await stand.ask()).code == "rate_limit_exceeded"
    assert (await stand.ask(headers=other, model=STEADY)).status == 200
    goes_on.set()
    assert [reply.status for reply in await asyncio.gather(*running)] == [200, 200]


@WIRES
async def test_075_one_key_takes_all_places(open_stand: OpenStand, wire: bool) -> None:
    """Without any limit of its own it gets no more than all; another one gets in all the same."""
    stand = await open_stand(bounds=BoundsConfig(calls_max=20), wire=wire)
    other = await another_key(stand)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    running = [asyncio.create_task(stand.ask()) for _ in range(20)]
    await stand.until(lambda: len(stand.first.requests) == 20)

    assert (await stand.ask(model=STEADY)).code == "overloaded"
    for stream in (True, False):
        assert (await stand.ask(headers=other, model=STEADY, stream=stream)).content == TEXT
    goes_on.set()
    assert [reply.content for reply in await asyncio.gather(*running)] == [TEXT] * 20


async def test_075_many_keys_flood(open_stand: OpenStand) -> None:
    """What is left to keys with few calls is no more than a tenth."""
    stand = await open_stand(bounds=BoundsConfig(calls_max=20))
    other = await another_key(stand)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    running = [asyncio.create_task(stand.ask()) for _ in range(20)]
    await stand.until(lambda: len(stand.first.requests) == 20)
    running += [asyncio.create_task(stand.ask(headers=other)) for _ in range(2)]
    await stand.until(lambda: len(stand.first.requests) == 22)

    assert (await stand.ask(headers=other, model=STEADY)).code == "overloaded"
    goes_on.set()
    assert [reply.content for reply in await asyncio.gather(*running)] == [TEXT] * 22


async def another_key(stand: FaultStand) -> Mapping[str, str]:
    """The headers of a caller with a key and an account of its own."""
    async with stand.service.operators_channel() as operators:
        made = await keys_grpc.KeyServiceStub(operators).CreateKey(
            keys.CreateKeyRequest(account="other")
        )
        await accounts_grpc.AccountServiceStub(operators).CreditAccount(
            accounts.CreditAccountRequest(
                account="other", amount_nano_usd=10**9, request_id="payment-1"
            )
        )
    return {"Authorization": f"Bearer {made.secret}"}


async def test_076_one_channel_is_slow(open_stand: OpenStand) -> None:
    """A channel with as many calls as it takes is passed over; other models do not notice."""
    stand = await open_stand(first={"max_concurrency": 2})
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    running = [asyncio.create_task(stand.ask()) for _ in range(2)]
    await stand.until(lambda: len(stand.first.requests) == 2)

    assert [(await stand.ask()).content for _ in range(3)] == [TEXT] * 3
    assert (await stand.ask(model=STEADY)).content == TEXT

    assert (len(stand.first.requests), len(stand.second.requests)) == (2, 3)
    goes_on.set()
    assert [reply.content for reply in await asyncio.gather(*running)] == [TEXT] * 2


async def test_079_come_back_at_different_times(open_stand: OpenStand) -> None:
    """Those who are refused together do not return together."""
    stand = await open_stand(bounds=BoundsConfig(calls_max=1))
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    running = asyncio.create_task(stand.ask())
    await stand.first.request()

    refused = await asyncio.gather(*(stand.ask() for _ in range(50)))
    goes_on.set()
    await running

    waits = [float(reply.headers["retry-after-ms"]) / 1000 for reply in refused]
    assert max(Counter(round(wait, 1) for wait in waits).values()) < len(waits) / 2


async def test_080_everything_fails(open_stand: OpenStand) -> None:
    """When all providers are down, they are asked hardly more often than callers ask us."""
    stand = await open_stand()
    stand.play(BUSY, second=BUSY)
    calls = 100

    replies = await asyncio.gather(*(stand.ask() for _ in range(calls)))

    assert {reply.status for reply in replies} == {503}
    asked = len(stand.first.requests) + len(stand.second.requests)
    assert asked <= calls * (1 + RETRY_SHARE) + 3 * RETRIES_PER_S
    assert await stand.charged() == (0, 0)


async def test_081_the_loop_is_blocked(open_stand: OpenStand) -> None:
    """It is measured; the process is alive and ready all the same, and the call is answered."""
    stand = await open_stand()

    def block(_: Request) -> Script:
        time.sleep(1.1)  # The worst that code of ours could do.
        return FINE

    stand.play(block)
    calls = [asyncio.create_task(stand.ask()) for _ in range(2)]
    await stand.until(lambda: stand.metric("loop_lag_seconds_sum") > 0.5)

    for path in ("healthz", "readyz"):
        async with stand.http.get(f"{stand.url}/{path}") as answer:
            assert answer.status == 200
    assert [reply.content for reply in await asyncio.gather(*calls)] == [TEXT] * 2
    assert await stand.charged() == (2, 2 * CHARGE)


@WIRES
async def test_082_and_111_runs_out_of_time(open_stand: OpenStand, wire: bool) -> None:
    """The caller's own deadline ends the call with 504, before the answer and within it."""
    stand = await open_stand(wire=wire)
    stand.play([STALL], [BEGIN, STALL])

    before = await stand.ask(headers={"x-pomogator-timeout": "0.2"})
    within = await stand.ask(headers={"x-pomogator-timeout": "0.2"})

    assert (before.status, before.code) == (504, "deadline_exceeded")
    assert (within.status, within.code, within.events[-1]) == (200, "deadline_exceeded", "[DONE]")
    await stand.left(stand.first)
    assert (await stand.charged())[0] == 1


@WIRES
async def test_082_an_sdk_is_not_patient(open_stand: OpenStand, wire: bool) -> None:
    """How long an SDK waits for a byte bounds a whole answer; a stream it does not."""
    stand = await open_stand(wire=wire)
    patience = {"x-stainless-read-timeout": "0.3"}
    goes_on = asyncio.Event()
    stand.play([STALL], [goes_on, *FINE])

    whole = await stand.ask(headers=patience, stream=False)
    streaming = asyncio.create_task(stand.ask(headers=patience))
    await stand.first.request(1)
    await asyncio.sleep(0.5)
    goes_on.set()

    assert (whole.status, whole.code) == (504, "deadline_exceeded")
    assert (await streaming).content == TEXT
    await stand.first.requests[0].left.wait()
    assert stand.second.requests == []
    assert await stand.charged() == (1, CHARGE)


@WIRES
async def test_082_no_time_at_all(open_stand: OpenStand, wire: bool) -> None:
    """A call whose time is over before anybody is asked is not begun."""
    stand = await open_stand(wire=wire)
    stand.play(fitting)

    reply = await stand.ask(headers={"x-pomogator-timeout": "0.000001"})

    assert (reply.status, reply.code) == (504, "deadline_exceeded")
    assert stand.first.requests == []
    assert await stand.charged() == (0, 0)


async def test_082_no_time_for_another_attempt(open_stand: OpenStand) -> None:
    """A channel that usually takes longer than is left is not asked after another has failed."""
    stand = await open_stand()

    async def think(_: object) -> None:
        await asyncio.sleep(0.4)

    stand.play(BUSY, second=[think, *FINE])
    assert (await stand.ask()).content == TEXT

    reply = await stand.ask(headers={"x-pomogator-timeout": "0.2"})

    assert (reply.status, reply.code) == (503, "upstream_overloaded")
    assert len(stand.second.requests) == 1


@WIRES
async def test_104_more_calls_than_money(open_stand: OpenStand, wire: bool) -> None:
    """Of a hundred calls at once on a balance for ten, ten are made."""
    stand = await open_stand(wire=wire)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    async with stand.service.operators_channel() as operators:
        made = await keys_grpc.KeyServiceStub(operators).CreateKey(
            keys.CreateKeyRequest(account="poor")
        )
        first = await stand.ask(model=STEADY)
        hold = stand.log.of("call.ended")[0]["hold_nano"]
        assert first.status == 200
        book = accounts_grpc.AccountServiceStub(operators)
        await book.CreditAccount(
            accounts.CreditAccountRequest(
                account="poor", amount_nano_usd=10 * hold, request_id="payment-1"
            )
        )
        headers = {"Authorization": f"Bearer {made.secret}"}
        running = [asyncio.create_task(stand.ask(headers=headers)) for _ in range(100)]
        await stand.until(lambda: sum(task.done() for task in running) == 90)
        goes_on.set()
        statuses = Counter(reply.status for reply in await asyncio.gather(*running))
        await stand.wait_until_idle()
        account = (await book.GetAccount(accounts.GetAccountRequest(account="poor"))).account

    assert statuses == {200: 10, 402: 90}
    assert account.balance_nano_usd >= 0


@pytest.mark.parametrize("stream", [True, False])
async def test_107_more_calls_than_places(open_stand: OpenStand, stream: bool) -> None:
    """Ten at once on five places: five are made, and the others have used up nothing."""
    stand = await open_stand(limits=(LimitConfig(model=MODEL, rpm=5),))
    stand.play(fitting)

    replies = await asyncio.gather(*(stand.ask(stream=stream) for _ in range(10)))

    assert Counter(reply.status for reply in replies) == {200: 5, 429: 5}
    assert all(float(reply.headers["Retry-After"]) >= 1 for reply in replies if reply.status == 429)
    assert await stand.charged() == (5, 5 * CHARGE)


@WIRES
@pytest.mark.parametrize("read", [0, 1, 2])
async def test_112_cancels_after_some(open_stand: OpenStand, wire: bool, read: int) -> None:
    """Whoever cancels a stream, after however much, is left by the provider too."""
    stand = await open_stand(wire=wire)
    stand.play([BEGIN, STALL])

    async with stand.post() as answer:
        for _ in range(read):
            await answer.content.readuntil(b"\n\n")
        if not read:
            await stand.first.request()
    await asyncio.wait_for(stand.first.requests[0].left.wait(), 5)

    assert (await stand.charged())[0] == 1


@WIRES
async def test_113_sends_much(open_stand: OpenStand, wire: bool) -> None:
    """More than gRPC's usual four mebibytes goes through, both ways."""
    stand = await open_stand(wire=wire)
    stand.play(fitting)
    messages = [{"role": "user", "content": "x" * 900_000} for _ in range(6)]

    reply = await stand.send(json.dumps({"model": MODEL, "messages": messages}).encode())

    assert (reply.status, reply.content) == (200, TEXT)


async def test_117_reflection_is_off(open_stand: OpenStand) -> None:
    """Who is not told to tell what there is, does not."""
    stand = await open_stand()
    async with (
        listening(stand.service.register, "127.0.0.1:0", grace_s=0) as bound,
        open_channel(bound) as channel,
    ):
        reflect: Any = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        call = reflect(iter([b""]))
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_118_is_not_ready_while_it_stops(open_stand: OpenStand) -> None:
    """Readiness is off as soon as the service drains; liveness, and calls that come, are not."""
    stand = await open_stand()
    stand.play(fitting)
    await stand.service.drain()

    async with stand.http.get(f"{stand.url}/readyz") as answer:
        assert answer.status == 503
    async with stand.http.get(f"{stand.url}/healthz") as answer:
        assert answer.status == 200
    assert (await stand.ask()).status == 200


def test_prices_are_what_the_tests_reckon_with() -> None:
    """A call of the usual usage costs two hundredths of a thousandth of a dollar."""
    assert Decimal(CHARGE) / 10**9 == Decimal("0.00002")
