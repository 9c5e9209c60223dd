"""A call that is cancelled at its n-th await, for every n.

Edge and service run in one task here, so that the awaits of both are counted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import coroutine
from typing import Any, TypeVar, cast

import aiohttp
import pytest
from aiohttp import web
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc

from gateway.app import create_app
from gateway.config import EdgeConfig
from gateway.http.fast_path.fast_path import FastPathExchange
from gateway.http.fast_path.fast_path_connection import FastPathConnection
from gateway.http.runner import EdgeRunner
from services.config import ChannelConfig, Config, ModelConfig
from services.serving.core_backend import CoreBackend
from services.serving.server import open_service
from services.serving.service import Service
from services.storage.keys import KeyScope
from tests.stand.gateway import stored
from tests.stand.held_provider import (
    ASKED,
    CHARGE_NANO_USD,
    MODEL,
    PATH,
    REQUEST_USD,
    USAGE,
    audited_charges,
    piece,
)
from tests.stand.upstream import (
    CUT,
    SSE_HEAD_UNTIL_CLOSE,
    FakeUpstream,
    Request,
    Script,
    Step,
    UpstreamConnection,
    answer,
    event,
)

T = TypeVar("T")


async def breathe(_line: UpstreamConnection) -> None:
    """Lets what was sent arrive before more follows."""
    await asyncio.sleep(0.005)


ONE_AT_A_TIME = KeyScope(concurrency=1)
ENOUGH = 500
"""No call waits that often."""


@coroutine
def cancelled_at(fatal: int, work: Coroutine[Any, Any, T], *, late: bool) -> Generator[Any, Any, T]:
    """Does the work; when it waits for the `fatal`-th time, its task is cancelled.

    At once, or `late`: when what it waits for has happened, and it does not know yet.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    value, error, waits = None, None, 0
    while True:
        try:
            awaited = work.send(value) if error is None else work.throw(error)
        except StopIteration as end:
            return cast("T", end.value)
        waits += 1
        if waits == fatal and not late:
            task.cancel()
        value, error = None, None
        try:
            value = yield awaited
            if waits == fatal and late:
                task.cancel()
                yield
        except BaseException as raised:  # noqa: BLE001 - passed on, whatever it is
            error = raised


class Place:
    """A gateway whose callers leave when they are told to."""

    def __init__(self, service: Service, upstream: FakeUpstream) -> None:
        self.service = service
        self.upstream = upstream
        self.fatal = ENOUGH
        self.left = True
        self.late = False
        self.chunked: bool | None = None
        self.url = ""
        self._played: list[asyncio.Event] = []

    @web.middleware
    async def leaving(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Cancels the handler at the wait that is fatal."""
        return await self._leaving(handler(request))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The same on the way around aiohttp, which no middleware sees."""
        serve = FastPathConnection.serve

        async def leaving(
            connection: FastPathConnection, exchange: FastPathExchange, *, admitted: bool
        ) -> None:
            await self._leaving(serve(connection, exchange, admitted=admitted))

        FastPathConnection.serve = leaving  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            FastPathConnection.serve = serve  # type: ignore[method-assign]

    async def _leaving(self, handling: Awaitable[T]) -> T:
        self.left = True
        work = cast("Coroutine[Any, Any, T]", handling)
        response = await cast("Awaitable[T]", cancelled_at(self.fatal, work, late=self.late))
        self.left = False
        return response

    def play(self, request: Request) -> Script:
        """An answer in pieces, on a connection that is of no use afterwards."""
        played = asyncio.Event()
        self._played.append(played)

        async def end(_line: UpstreamConnection) -> None:
            played.set()

        if not request.json().get("stream"):
            message = {"role": "assistant", "content": "Good day"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({"id": "1", "choices": [choice], "usage": USAGE}).encode()
            half = len(body) // 2
            head = answer(b"", connection="close").replace(b"length: 0", b"length: %d" % len(body))
            return [head, breathe, body[:half], breathe, body[half:], end, CUT]
        pieces: list[Step] = [SSE_HEAD_UNTIL_CLOSE]
        for word in ("Good", " ", "day"):
            pieces += [breathe, event(piece({"content": word}))]
        last = [piece({}, "stop"), {"choices": [], "usage": USAGE}, "[DONE]"]
        return [*pieces, breathe, *(event(data) for data in last), end, CUT]

    async def ask(self, http: aiohttp.ClientSession, **request: Any) -> int:
        """The status of a call. 0: it broke off."""
        status = 0
        with suppress(aiohttp.ClientError):
            headers = {**request.pop("headers"), "Content-Type": "application/json"}
            body, chunked = json.dumps(request).encode(), self.chunked
            url = self.url + PATH
            async with http.post(url, headers=headers, data=body, chunked=chunked) as reply:
                await reply.read()
                status = reply.status
        return status

    async def quiet(self) -> None:
        """Returns when nothing is left of any call: no hold, no connection that still works."""
        for request, played in zip(self.upstream.requests, self._played, strict=True):
            ends = [asyncio.create_task(event.wait()) for event in (request.left, played)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        assert not self.service.calls.live
        async with self.service.operators_channel() as channel:
            verify = ledger_grpc.LedgerServiceStub(channel).VerifyLedger
            while True:
                result = await verify(ledger.VerifyLedgerRequest())
                assert not result.findings
                if not result.counts["held"]:
                    return
                await asyncio.sleep(0.01)  # The outbox announces nothing.


@asynccontextmanager
async def place(state: Path, database_url: str) -> AsyncIterator[Place]:
    """A gateway, its provider, and a key that may make one call at a time."""
    async with FakeUpstream() as upstream:
        channel = ChannelConfig(
            name="house", dialect="openai", base_url=upstream.url, models={MODEL: "m"}
        )
        config = Config(
            channels=(channel,),
            models=(ModelConfig(name=MODEL, request_usd=REQUEST_USD),),
            state=stored(database_url),
        )
        async with open_service(config, state, {}) as service, service.channel() as local:
            made = Place(service, upstream)
            upstream.play(made.play)
            backend = CoreBackend(service, local)
            app = create_app(local, EdgeConfig(), backend=backend)
            app.middlewares.insert(0, made.leaving)
            runner = EdgeRunner(app)
            await runner.setup()
            with made.watching():
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                host, port = runner.addresses[0][:2]
                made.url = f"http://{host}:{port}"
                await service.key_maker.make_first()
                yield made
                await runner.cleanup()


@pytest.mark.parametrize("name", [{}, {"Idempotency-Key": "order"}])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("late", [False, True])
async def test_cancelling_at_any_await_leaves_nothing_behind(
    tmp_path: Path,
    each_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    name: Mapping[str, str],
    *,
    stream: bool,
    late: bool,
) -> None:
    """After each: no hold, limit slot or connection stays, the books are right, the name is free.

    A hold that was committed after its call was cancelled is recovered, here after two seconds.
    Row 69.
    """
    monkeypatch.setattr("services.metering.ledger.LOST_AFTER_S", 2.0)
    monkeypatch.setattr("services.metering.ledger.SWEEP_HEARTBEATS", 1)
    fatal = 0
    async with place(tmp_path, each_database_url) as gateway, aiohttp.ClientSession() as http:
        gateway.late = late
        # Bodies in chunks go the long way, through aiohttp; one named call does for it.
        gateway.chunked = True if name and late else None
        while gateway.left:
            fatal += 1
            # Nobody knows the key yet, and a slot that is lost is noticed.
            _, key = await gateway.service.key_maker.make("default", scope=ONE_AT_A_TIME)
            headers = {each: f"{value}-{fatal}" for each, value in name.items()}
            headers["Authorization"] = f"Bearer {key}"
            call = {**ASKED, "stream": stream, "headers": headers}
            gateway.fatal = fatal
            status = await gateway.ask(http, **call)
            left = gateway.left
            assert status in {0, 200}
            await gateway.quiet()

            gateway.fatal = ENOUGH
            assert await gateway.ask(http, **call) == 200
            await gateway.quiet()
            gateway.left = left
        assert fatal > 5
    ends = await audited_charges(tmp_path, each_database_url)
    assert ends["voided"] == 0
    assert ends["settled"] >= CHARGE_NANO_USD * fatal
