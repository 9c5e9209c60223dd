"""Calls in flight, as operators list and abort them."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import audit_service_pb2_grpc as audit_grpc
from pomogator.calls.v1 import call_service_pb2 as calls
from pomogator.calls.v1 import call_service_pb2_grpc as calls_grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc
from prometheus_client import generate_latest

from services.errors import Failure
from services.operations.live_calls import LiveCalls
from services.serving.server import SYSTEM_CLOCK
from tests.stand.billing_stand import (
    COST_NANO,
    MODEL,
    NANO,
    PRICE,
    USAGE,
    BillingStand,
    bearer,
    billing_stand,
    piece,
)
from tests.stand.embedding_provider import EmbeddingProvider
from tests.stand.embedding_stand import embedding_stand
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.polling import until
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, STALL, Script, sse

HELLO: Mapping[str, Any] = {"role": "user", "content": "Hello"}
CHAT = {"model": MODEL, "messages": [HELLO], "max_tokens": 20}
BODIES: Mapping[str, Mapping[str, Any]] = {
    "chat/completions": CHAT,
    "completions": {"model": MODEL, "prompt": "Hello", "max_tokens": 20},
    "messages": CHAT,
    "responses": {"model": MODEL, "input": "Hello", "max_output_tokens": 20},
}
"""A request to each API."""
BEGUN: Script = [SSE_HEAD, sse(piece("Hi there"))]
ENDING = sse(piece(None), {"choices": [], "usage": USAGE}, "[DONE]")
WHY = "a runaway agent"
ALL = pb.ListLiveCallsRequest()


@dataclass(frozen=True, slots=True)
class Live:
    """Gateway with the operators' view of its calls."""

    stand: BillingStand
    stub: Any
    log: Any
    calls: Any

    async def listed(self, **selected: Any) -> Sequence[pb.LiveCall]:
        """Return the calls in flight."""
        answer = await self.stub.ListLiveCalls(pb.ListLiveCallsRequest(**selected))
        assert answer.total_count == len(answer.calls)
        return list(answer.calls)

    async def one(self, state: pb.LiveCallState.ValueType) -> pb.LiveCall:
        """Return the only call, once it is in this state."""
        while True:
            found = await self.listed()
            if [each.state for each in found] == [state]:
                return found[0]
            await asyncio.sleep(0.005)

    async def abort(self, call_id: str) -> pb.LiveCall:
        """Abort a call."""
        request = pb.AbortCallRequest(call_id=call_id, reason=WHY)
        call: pb.LiveCall = (await self.stub.AbortCall(request)).call
        return call

    async def logged(self, number: int = 1) -> Sequence[calls.Call]:
        """Return the rows of the call log, once there are so many."""
        while True:
            answer = await self.calls.ListCalls(calls.ListCallsRequest(page_size=1000))
            if len(answer.calls) >= number:
                return list(answer.calls)
            await asyncio.sleep(0.01)

    def metrics(self) -> str:
        """Return the metrics of the process."""
        return generate_latest(self.stand.gateway.service.registry).decode()

    def post(self, key: str, path: str, **fields: Any) -> Any:
        """Send a request to an API."""
        url = f"{self.stand.gateway.base_url}/{path}"
        body = {**BODIES[path], **fields}
        return self.stand.gateway.http.post(url, json=body, headers=bearer(key))


@asynccontextmanager
async def live(state: Path, **options: Any) -> AsyncIterator[Live]:
    """Open a gateway with prices and a call log."""
    async with (
        billing_stand(state, **options) as stand,
        stand.gateway.service.operators_channel() as opened,
    ):
        yield Live(
            stand,
            pb_grpc.OperationsServiceStub(opened),
            audit_grpc.AuditServiceStub(opened),
            calls_grpc.CallServiceStub(opened),
        )


async def begun(answer: aiohttp.ClientResponse) -> None:
    """Return once a stream has its first words."""
    await answer.content.readuntil(b"Hi there")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_calls_in_flight_are_listed_with_their_progress(
    tmp_path: Path, transport: Transport
) -> None:
    """They wait, answer and end. Those of edges in other processes are listed, too."""
    async with live(tmp_path, transport=transport) as it:
        goes_on, begins = asyncio.Event(), asyncio.Event()
        it.stand.script = [begins, *BEGUN, goes_on, ENDING, LAST_CHUNK]
        key = await it.stand.open()
        headers = {**bearer(key), "x-request-id": "req-7", "x-session-id": "s-1"}
        url = f"{it.stand.gateway.base_url}/messages"
        body = {**CHAT, "stream": True}
        asking = asyncio.ensure_future(
            it.stand.gateway.http.post(url, json=body, headers=headers).__aenter__()
        )
        waiting = await it.one(pb.LIVE_CALL_STATE_WAITING)
        begins.set()
        async with await asking as answer:
            await begun(answer)
            call = await it.one(pb.LIVE_CALL_STATE_ANSWERING)
            assert await it.listed(account="acme", key_id=call.key_id, model=MODEL) == [call]
            for other in ({"account": "other"}, {"model": "m"}, {"channel": "none"}):
                assert await it.listed(**other) == []
            goes_on.set()
            await answer.read()

        async def has_ended() -> bool:
            return not await it.listed()

        await until(has_ended)

    assert waiting.call_id == call.call_id
    assert (call.request_id, call.account, call.session_id) == ("req-7", "acme", "s-1")
    assert (call.model, call.channel, call.attempt_count) == (MODEL, "house", 1)
    assert (call.surface, call.streamed) == ("messages", True)
    assert (waiting.completion_token_count, call.completion_token_count > 0) == (0, True)
    assert call.key_id


async def test_a_page_of_calls_in_flight_goes_on_where_the_one_before_ended(
    tmp_path: Path,
) -> None:
    """Oldest first; the number of all is in each page."""
    async with live(tmp_path) as it:
        it.stand.script = [*BEGUN, STALL]
        key = await it.stand.open()
        answers = [it.post(key, "chat/completions", stream=True) for _ in range(5)]
        for each in answers:
            await begun(await each.__aenter__())
        seen: list[str] = []
        page = pb.ListLiveCallsResponse(next_page_token="")
        while len(seen) < 5:
            request = pb.ListLiveCallsRequest(page_size=2, page_token=page.next_page_token)
            page = await it.stub.ListLiveCalls(request)
            assert page.total_count == 5
            seen += [call.call_id for call in page.calls]
        whole = await it.listed()
        for each in answers:
            await each.__aexit__(None, None, None)

    assert seen == [call.call_id for call in whole]
    assert page.next_page_token == ""


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("path", BODIES)
async def test_an_aborted_stream_ends_with_the_error_of_its_api(
    tmp_path: Path, path: str, transport: Transport
) -> None:
    """The provider is cut off, what came is paid once, and all that operators read names it."""
    async with live(tmp_path, transport=transport) as it:
        it.stand.script = [*BEGUN, STALL]
        key = await it.stand.open()
        async with it.post(key, path, stream=True) as answer:
            await begun(answer)
            call = await it.one(pb.LIVE_CALL_STATE_ANSWERING)
            aborted = await it.abort(call.call_id)
            rest = (await answer.read()).decode()
        await (await it.stand.upstream.request()).left.wait()
        counts = await it.stand.ended(1)
        (row,) = await it.logged()
        entry = (await it.log.ListAuditEntries(audit.ListAuditEntriesRequest())).audit_entries[0]
        metrics = it.metrics()

    errors = [json.loads(line[6:]) for line in rest.splitlines() if '"An operator' in line]
    (error,) = [each.get("error") or each["response"]["error"] for each in errors]
    expected = {
        "messages": ("type", "invalid_request_error"),
        "responses": ("code", "server_error"),
    }
    name, value = expected.get(path, ("code", "call_aborted"))
    assert error[name] == value
    assert aborted.call_id == call.call_id
    assert (counts["settled"], counts["voided"]) == (1, 0)
    assert (row.end, row.reason, row.http_status) == ("aborted", "CALL_ABORTED", 409)
    assert row.charge_nano_usd > 0
    assert 'pomogator_stream_ends_total{end="aborted"} 1' in metrics
    assert (entry.method, entry.account) == ("OperationsService.AbortCall", "")
    told = json.loads(entry.after_json)["abort"]
    assert (told["reason"], told["account"]) == (WHY, "acme")
    assert WHY not in rest


@pytest.mark.parametrize("path", BODIES)
async def test_an_aborted_call_without_an_answer_gets_a_final_409(
    tmp_path: Path, path: str
) -> None:
    """SDKs do not retry it. It costs its prompt, as the provider has that."""
    async with live(tmp_path) as it:
        it.stand.script = [STALL]
        key = await it.stand.open()
        asking = asyncio.ensure_future(it.post(key, path).__aenter__())
        await it.stand.upstream.request()
        await it.abort((await it.one(pb.LIVE_CALL_STATE_WAITING)).call_id)
        async with await asking as answer:
            error = (await answer.json())["error"]
        counts = await it.stand.ended(1)
        (row,) = await it.logged()
        metrics = it.metrics()

    assert (answer.status, answer.headers["x-should-retry"]) == (409, "false")
    assert error["message"] == "An operator of the gateway has ended this call."
    assert (row.end, row.reason) == ("aborted", "CALL_ABORTED")
    assert counts["settled"] == 1
    assert 'refused_total{reason="CALL_ABORTED"}' not in metrics


async def test_an_abort_closes_a_connection_that_is_drained_otherwise(tmp_path: Path) -> None:
    """Where the provider bills the whole answer, the call costs its hold."""
    async with live(tmp_path, channel={"on_disconnect": "drain"}) as it:
        it.stand.script = [*BEGUN, STALL]
        key = await it.stand.open()
        async with it.post(key, "chat/completions", stream=True) as answer:
            await begun(answer)
            await it.abort((await it.one(pb.LIVE_CALL_STATE_ANSWERING)).call_id)
            await answer.read()
            await (await it.stand.upstream.request()).left.wait()
        (row,) = await it.logged()

    assert row.end == "aborted"
    assert row.completion_token_count == 20


async def test_an_aborted_grpc_call_fails_with_aborted(tmp_path: Path) -> None:
    """Over the stubs it has the code ABORTED and the reason CALL_ABORTED."""
    async with live(tmp_path) as it, it.stand.gateway.service.channel() as opened:
        it.stand.script = [*BEGUN, STALL]
        key = await it.stand.open()
        spec = chat.ChatCompletionSpec(model=MODEL, max_tokens=20)
        spec.messages.add(role=1).content.add(text="Hello")
        stub: Any = chat_grpc.ChatCompletionServiceStub(opened)
        stream = stub.StreamChatCompletion(
            chat.StreamChatCompletionRequest(spec=spec),
            metadata=(("authorization", f"Bearer {key}"),),
        )
        await stream.read()
        call = await it.one(pb.LIVE_CALL_STATE_ANSWERING)
        await it.abort(call.call_id)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stream.read()

    assert (call.surface, failed.value.code()) == ("grpc", grpc.StatusCode.ABORTED)
    trailers = dict(failed.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "CALL_ABORTED"


async def test_a_call_for_embeddings_is_aborted(tmp_path: Path) -> None:
    """It gets the same error."""
    provider = EmbeddingProvider()
    provider.scripts.append([STALL])
    async with (
        embedding_stand(tmp_path, provider) as stand,
        stand.gateway.service.operators_channel() as opened,
    ):
        stub: Any = pb_grpc.OperationsServiceStub(opened)
        key = await stand.open_account()
        asking = asyncio.ensure_future(stand.ask({"input": "Hello"}, key))
        await provider.request(0)
        (call,) = (await stub.ListLiveCalls(ALL)).calls
        await stub.AbortCall(pb.AbortCallRequest(call_id=call.call_id, reason=WHY))
        answer = await asking
        await (await provider.request(0)).left.wait()

    assert (call.surface, call.attempt_count) == ("embeddings", 1)
    assert (answer.status, answer.code) == (409, "call_aborted")


async def test_an_abort_of_no_call_in_flight_is_not_found(tmp_path: Path) -> None:
    """The audit log has no entry. A call that has ended cannot be aborted."""
    async with live(tmp_path) as it:
        it.stand.script = [*BEGUN, STALL]
        key = await it.stand.open()
        async with it.post(key, "chat/completions", stream=True) as answer:
            await begun(answer)
            (call,) = await it.listed()
            process, _, number = call.call_id.rpartition("-")
            others = ("999", "", "\u0661", "9" * 5000)
            unknown = ["", "live", number, f"live-00000000-{number}"]
            for call_id in (*unknown, *(f"{process}-{other}" for other in others)):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await it.abort(call_id)
                assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            for reason in ("", "x" * 257, "two\nlines"):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await it.stub.AbortCall(
                        pb.AbortCallRequest(call_id=call.call_id, reason=reason)
                    )
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert len(await it.listed()) == 1
            await it.abort(call.call_id)
            await answer.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await it.abort(call.call_id)
        entries = (await it.log.ListAuditEntries(audit.ListAuditEntriesRequest())).audit_entries

    aborts = [entry for entry in entries if entry.method == "OperationsService.AbortCall"]
    assert len(aborts) == 1


async def test_acts_take_effect_though_the_audit_log_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the entries of an abort and a reload whole."""
    caplog.set_level(logging.INFO)
    async with live(tmp_path) as it:
        it.stand.script = [*BEGUN, STALL]
        key = await it.stand.open()
        async with it.post(key, "chat/completions", stream=True) as answer:
            await begun(answer)
            with closing(sqlite3.connect(tmp_path / "pomogator.db")) as database:
                database.execute("ALTER TABLE audit_entries RENAME TO moved")
            (call,) = await it.listed()
            aborted = await it.abort(call.call_id)
            rest = (await answer.read()).decode()
            await it.stub.ReloadConfiguration(pb.ReloadConfigurationRequest())

    assert aborted.call_id == call.call_id
    assert "call_aborted" in rest
    assert "config.reloaded" in caplog.messages
    lost = [vars(each) for each in caplog.records if each.getMessage() == "audit.unwritten"]
    assert [each["action"].partition(".")[2] for each in lost] == [
        "AbortCall",
        "ReloadConfiguration",
    ]
    assert json.loads(lost[0]["after"])["abort"]["reason"] == WHY
    assert lost[0]["resource"] == f"liveCalls/{call.call_id}"
    assert all(each["request_id"] for each in lost)


KINDS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("chat/completions", {"stream": True}),
    ("chat/completions", {}),
    ("messages", {"stream": True}),
)


@pytest.mark.parametrize("drains", [False, True])
@pytest.mark.parametrize("named", [False, True])
async def test_a_call_settles_once_in_whichever_turn_of_the_loop_it_is_aborted(
    tmp_path: Path, *, drains: bool, named: bool
) -> None:
    """Each hold ends once, each call has one row; what completed costs what it costs."""
    options = {"on_disconnect": "drain"} if drains else {}
    async with live(tmp_path, channel=options, price={**PRICE, "max_output_tokens": 20}) as it:
        key = await it.stand.open(100 * NANO)
        calls_now = LiveCalls(it.stand.gateway.service.calls, SYSTEM_CLOCK)
        ended = 0
        for turns in range(60):
            path, fields = KINDS[turns % len(KINDS)]
            headers = {**bearer(key), **({"Idempotency-Key": f"k-{turns}"} if named else {})}
            url = f"{it.stand.gateway.base_url}/{path}"
            body = {**BODIES[path], **fields}
            asking = asyncio.ensure_future(read_all(it.stand.gateway.http, url, body, headers))
            # From here on in the turns of this loop, without a call of an operator between them.
            while not (found := calls_now.page(ALL).calls):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            with suppress(Failure):
                calls_now.abort(found[0].call_id)
            await asking
            ended += 1
        rows = await it.logged(ended)
        await it.stand.closed()
        counts = await it.stand.counts()

    held = [row for row in rows if row.charge_nano_usd or row.hold_nano_usd]
    assert len(rows) == ended
    assert counts["settled"] + counts["voided"] == len(held)
    ends = Counter(row.end for row in rows)
    assert ends["aborted"] > 3
    assert ends["aborted"] + ends["stop"] == ended
    assert {row.charge_nano_usd for row in rows if row.end == "stop"} <= {COST_NANO}


async def read_all(
    http: aiohttp.ClientSession, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> bytes:
    """Send a request and read its answer."""
    async with http.post(url, json=body, headers=headers) as answer:
        return await answer.read()
