"""Overload, races, and what gRPC adds to them."""

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
from services.rpc.local_channel import local_channel
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
async def test_calls_over_the_limit_are_refused_with_retry_after(
    open_stand: OpenStand, wire: bool
) -> None:
    """Over its limit a process refuses at once, with Retry-After. Row 74."""
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
    assert stand.metric("requests_refused_total", reason="OVERLOADED") == 1


async def test_queued_too_long_calls_are_refused_before_any_check(open_stand: OpenStand) -> None:
    """Where all have waited for long, calls are refused before even the key is checked. Row 74."""
    stand = await open_stand()
    async with local_channel(stand.service.register) as channel:
        stub = ChatCompletionServiceStub(channel)

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
    assert stand.metric("requests_refused_total", reason="OVERLOADED") == 1


async def test_a_key_at_its_limit_does_not_block_others(open_stand: OpenStand) -> None:
    """A key at its concurrency limit is refused; another key is served. Row 75."""
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
async def test_a_key_without_a_limit_leaves_room_for_others(
    open_stand: OpenStand, wire: bool
) -> None:
    """A key without a limit gets the process's limit at most; another key is still admitted.

    Row 75.
    """
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


async def test_the_reserve_for_keys_with_few_calls_is_a_tenth(open_stand: OpenStand) -> None:
    """The reserve for keys with few calls is no more than a tenth. Row 75."""
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


async def test_a_channel_at_its_limit_is_passed_over(open_stand: OpenStand) -> None:
    """A channel at its concurrency limit is passed over; other models are unaffected. Row 76."""
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


async def test_retry_after_is_spread(open_stand: OpenStand) -> None:
    """Calls refused together get different Retry-After. Row 79."""
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


async def test_failing_providers_get_hardly_more_requests_than_we_do(open_stand: OpenStand) -> None:
    """When all providers fail, retries hardly add to their requests. Row 80."""
    stand = await open_stand()
    stand.play(BUSY, second=BUSY)
    calls = 100

    replies = await asyncio.gather(*(stand.ask() for _ in range(calls)))

    assert {reply.status for reply in replies} == {503}
    asked = len(stand.first.requests) + len(stand.second.requests)
    assert asked <= calls * (1 + RETRY_SHARE) + 3 * RETRIES_PER_S
    assert await stand.charged() == (0, 0)


async def test_a_blocked_event_loop_is_measured(open_stand: OpenStand) -> None:
    """The lag is measured; the process stays alive and ready, and the call is answered. Row 81."""
    stand = await open_stand()

    def block(_: Request) -> Script:
        time.sleep(1.1)  # The worst that code of ours could do.
        return FINE

    stand.play(block)
    calls = [asyncio.create_task(stand.ask()) for _ in range(2)]
    await stand.until(lambda: stand.metric("event_loop_lag_seconds_sum") > 0.5)

    for path in ("healthz", "readyz"):
        async with stand.http.get(f"{stand.url}/{path}") as answer:
            assert answer.status == 200
    assert [reply.content for reply in await asyncio.gather(*calls)] == [TEXT] * 2
    assert await stand.charged() == (2, 2 * CHARGE)


@WIRES
async def test_the_callers_deadline_ends_the_call_with_504(
    open_stand: OpenStand, wire: bool
) -> None:
    """The caller's own deadline ends the call with 504, before the answer and within it.

    Both calls are charged, since their requests were sent. Rows 82, 111.
    """
    stand = await open_stand(wire=wire)
    stand.play([STALL], [BEGIN, STALL], second=[STALL])

    before = await stand.ask(headers={"x-pomogator-timeout": "0.2"})
    within = await stand.ask(headers={"x-pomogator-timeout": "0.2"})

    assert (before.status, before.code) == (504, "deadline_exceeded")
    assert (within.status, within.code, within.events[-1]) == (200, "deadline_exceeded", "[DONE]")
    await stand.wait_until_disconnected(stand.first)
    assert (await stand.charged())[0] == 2


@WIRES
async def test_an_sdks_read_timeout_bounds_whole_answers_alone(
    open_stand: OpenStand, wire: bool
) -> None:
    """An SDK's timeout for a byte is the deadline of a whole answer, but not of a stream.

    Row 82.
    """
    stand = await open_stand(wire=wire)
    timeout = {"x-stainless-read-timeout": "0.3"}
    goes_on = asyncio.Event()
    stand.play([STALL], [goes_on, *FINE], second=[STALL])

    whole = await stand.ask(headers=timeout, stream=False)
    streaming = asyncio.create_task(stand.ask(headers=timeout))
    await stand.first.request(1)
    await asyncio.sleep(0.5)
    goes_on.set()

    assert (whole.status, whole.code) == (504, "deadline_exceeded")
    assert (await streaming).content == TEXT
    await stand.first.requests[0].left.wait()
    assert len(stand.second.requests) == 1  # Of the whole answer, for half of its time.
    calls, charge = await stand.charged()
    assert calls == 2
    assert CHARGE < charge < 2 * CHARGE


@WIRES
async def test_a_call_past_its_deadline_is_not_begun(open_stand: OpenStand, wire: bool) -> None:
    """A call whose deadline has passed asks no provider. Row 82."""
    stand = await open_stand(wire=wire)
    stand.play(fitting)

    reply = await stand.ask(headers={"x-pomogator-timeout": "0.000001"})

    assert (reply.status, reply.code) == (504, "deadline_exceeded")
    assert stand.first.requests == []
    assert await stand.charged() == (0, 0)


async def test_no_failover_to_a_channel_slower_than_the_deadline(open_stand: OpenStand) -> None:
    """A channel that usually takes longer than the time left gets no second attempt. Row 82."""
    stand = await open_stand()

    async def think(_: object) -> None:
        await asyncio.sleep(0.4)

    stand.play(BUSY, second=[think, *FINE])
    assert (await stand.ask()).content == TEXT

    reply = await stand.ask(headers={"x-pomogator-timeout": "0.2"})

    assert (reply.status, reply.code) == (503, "upstream_overloaded")
    assert len(stand.second.requests) == 1


@WIRES
async def test_a_balance_for_ten_admits_ten_of_a_hundred(open_stand: OpenStand, wire: bool) -> None:
    """A hundred calls at once on a balance for ten: ten are made. Row 104."""
    stand = await open_stand(wire=wire)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    async with stand.service.operators_channel() as operators:
        made = await keys_grpc.KeyServiceStub(operators).CreateKey(
            keys.CreateKeyRequest(account="poor")
        )
        first = await stand.ask(model=STEADY)
        hold = stand.log.of("call.ended")[0]["hold_nano_usd"]
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
async def test_five_slots_admit_five_of_ten(open_stand: OpenStand, stream: bool) -> None:
    """Ten calls at once on five slots: five are made, and the others use up nothing. Row 107."""
    stand = await open_stand(limits=(LimitConfig(model=MODEL, rpm=5),))
    stand.play(fitting)

    replies = await asyncio.gather(*(stand.ask(stream=stream) for _ in range(10)))

    assert Counter(reply.status for reply in replies) == {200: 5, 429: 5}
    assert all(float(reply.headers["Retry-After"]) >= 1 for reply in replies if reply.status == 429)
    assert await stand.charged() == (5, 5 * CHARGE)


@WIRES
@pytest.mark.parametrize("read", [0, 1, 2])
async def test_cancelling_over_grpc_cancels_the_provider(
    open_stand: OpenStand, wire: bool, read: int
) -> None:
    """Cancelling a stream, after any number of messages, cancels the provider's answer. Row 112."""
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
async def test_messages_over_four_mebibytes_pass(open_stand: OpenStand, wire: bool) -> None:
    """More than gRPC's default of 4 MiB passes both ways. Row 113."""
    stand = await open_stand(wire=wire)
    stand.play(fitting)
    messages = [{"role": "user", "content": "x" * 900_000} for _ in range(6)]

    reply = await stand.send(json.dumps({"model": MODEL, "messages": messages}).encode())

    assert (reply.status, reply.content) == (200, TEXT)


async def test_reflection_is_off_by_default(open_stand: OpenStand) -> None:
    """Server reflection is off unless it is configured. Row 117."""
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


async def test_draining_ends_readiness_at_once(open_stand: OpenStand) -> None:
    """Readiness ends as soon as the service drains; liveness and new calls do not. Row 118."""
    stand = await open_stand()
    stand.play(fitting)
    await stand.service.drain()

    async with stand.http.get(f"{stand.url}/readyz") as answer:
        assert answer.status == 503
    async with stand.http.get(f"{stand.url}/healthz") as answer:
        assert answer.status == 200
    assert (await stand.ask()).status == 200


def test_a_call_of_the_usual_usage_costs_what_the_tests_assume() -> None:
    """A call of the usual usage costs two hundredths of a thousandth of a dollar."""
    assert Decimal(CHARGE) / 10**9 == Decimal("0.00002")
