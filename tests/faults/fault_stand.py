"""A gateway over faulty providers, with its log, its metrics and its books.

Two channels serve `house/model`: `first`, and `second` where that fails. A third, `steady`,
serves `house/steady` and never misbehaves, so that a test can see that the gateway lives on.
"""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.accounts.v1 import ledger_service_pb2_grpc as ledger_grpc

from gateway.config import EdgeConfig
from gateway.overload.memory_monitor import MemoryMonitor, monitoring
from gateway.rpc.service_channel import open_channel
from gateway.server import serving_rest
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.clock import Clock
from services.common.addresses import split_address
from services.common.json_logs import JsonFormatter
from services.config import ChannelConfig, Config, LimitConfig, ModelConfig, Secret
from services.overload.memory_pressure import MemoryPressure
from services.rpc.listener import listening
from services.serving.reload import Reloader
from services.serving.server import SYSTEM_CLOCK, open_service
from services.serving.service import Service
from tests.faults.log_and_metrics import OPERATORS_FAULTS, LogAndMetrics
from tests.stand.gateway import stored
from tests.stand.response import ReadResponse, read
from tests.stand.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    FakeUpstream,
    Player,
    Request,
    Script,
    json_answer,
    sse,
)

MODEL, STEADY = "house/model", "house/steady"
PROMPT = "canary-prompt-5b1e77"
PROVIDER_KEY = "sk-canary-provider-0c92fd"
PATH = "/v1/chat/completions"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]

PROMPT_USD, COMPLETION_USD = Decimal(1), Decimal(2)
"""Prices of a million tokens: a prompt token costs a microdollar."""
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
CHARGE = 10 * 1_000 + 5 * 2_000
"""The cost of `USAGE` in nanodollars."""

TIMEOUT_S = 10.0

PLACES = (LimitConfig(key="*", concurrency=1000), LimitConfig(channel="*", concurrency=1000))
"""Limits that no test reaches, so that every call holds a slot of each."""

LEFT = (
    "calls_in_flight",
    "draining_calls",
    "holds_open",
    "outbox_depth",
    "limit_leases",
    "upstream_connections",
)
"""Gauges that are 0 when no call runs."""


def piece(content: str = "", finish: str | None = None) -> dict[str, Any]:
    """A chunk of OpenAI's form."""
    delta = {"content": content} if content else {}
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


BEGIN = SSE_HEAD + sse(piece("canary-answer-"))
REST = sse(piece("31d0"), piece("", "stop"), {"id": "c", "choices": [], "usage": USAGE}, "[DONE]")
END = REST + LAST_CHUNK
FINE: Script = [BEGIN + END]
TEXT = "canary-answer-31d0"
ANSWER: Any = {
    "id": "c",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
WHOLE: Script = [json_answer(ANSWER)]


def fitting(request: Request) -> Script:
    """The answer as a stream or a document, as requested."""
    return FINE if request.json().get("stream") else WHOLE


def leaks_of(secret: str) -> Sequence[str]:
    """Strings that reveal a secret: its beginning and its encodings."""
    return secret[:12], b64encode(secret.encode()).decode().rstrip("="), quote(secret[:20], safe="")


class LogCapture(logging.Handler):
    """A log handler that keeps lines as a process would write them."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one line."""
        self.text.append(self.format(record))

    def of(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The lines of that event with these fields."""
        lines = [json.loads(text) for text in self.text]
        wanted = {"event": event, **fields}.items()
        return [line for line in lines if wanted <= {k: _flat(v) for k, v in line.items()}.items()]


def _flat(value: object) -> object:
    return value if not isinstance(value, list | dict) else str(value)


@dataclass(slots=True)
class FaultStand:
    """A gateway, its providers, and what it has answered and logged."""

    url: str
    key: str
    service: Service
    http: aiohttp.ClientSession
    first: FakeUpstream
    second: FakeUpstream
    steady: FakeUpstream
    config: Config
    log: LogCapture
    books: ledger_grpc.LedgerServiceStub
    edge: EdgeMetrics
    """The edge's metrics."""
    tasks: set[asyncio.Task[Any]]
    """The tasks that ran before the first request."""
    answers: list[ReadResponse] = field(default_factory=list)
    """All responses so far."""
    errors: set[str] = field(default_factory=lambda: set(OPERATORS_FAULTS))
    """Events of level error that may be in the log."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the edge."""
        return split_address(self.url.removeprefix("http://"))

    def play(self, *first: Script | Player, second: Script | Player = fitting) -> None:
        """Sets the scripts of the providers; by default the second one answers."""
        self.first.play(*first)
        self.second.play(second)

    def post(self, body: Any = None, **kwargs: Any) -> Any:
        """A request whose response the test reads."""
        asked = {"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": 50}
        return self.http.post(self.url + PATH, json={**asked, **(body or {})}, **kwargs)

    async def ask(self, *, headers: Mapping[str, str] | None = None, **fields: Any) -> ReadResponse:
        """Asks for a stream, unless the fields say otherwise, and reads all of it."""
        async with self.post(fields, headers=headers) as answer:
            return await self.read(answer)

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None) -> ReadResponse:
        """Sends bytes as the body of a request."""
        named = {"Content-Type": "application/json", **(headers or {})}
        async with self.http.post(self.url + PATH, data=BytesIO(body), headers=named) as answer:
            return await self.read(answer)

    @asynccontextmanager
    async def dial(
        self, **fields: Any
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Asks over a plain socket."""
        asked = {"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": 50, **fields}
        body = json.dumps(asked).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            yield reader, writer
        finally:
            writer.transport.abort()

    async def read(self, answer: aiohttp.ClientResponse) -> ReadResponse:
        """Reads a response to its end."""
        response = await read(answer)
        self.answers.append(response)
        return response

    def metric(self, name: str, **labels: str) -> float:
        """A metric at this moment; 0 where it has not moved."""
        registry = self.service.registry
        return registry.get_sample_value(f"pomogator_{name}", labels) or 0.0

    def edge_sample(self, name: str) -> float:
        """A metric of the edge at this moment that has no labels."""
        wanted = f"pomogator_edge_{name}"
        samples = (sample for metric in self.edge.collect() for sample in metric.samples)
        (value,) = (sample.value for sample in samples if sample.name == wanted)
        return value

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits until a condition holds."""
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():  # noqa: ASYNC110 - nobody tells of what is watched here
                await asyncio.sleep(0.005)

    async def wait_until_idle(self) -> None:
        """Waits until no call runs, no money is held, and no slot or connection is taken."""
        for name in LEFT:
            await self.until(partial(self._is_zero, name))
        for upstream in (self.first, self.second, self.steady):
            await self.until(partial(_is_idle, upstream))

    def _is_zero(self, name: str) -> bool:
        return self.metric(name) == 0

    async def charged(self) -> tuple[int, int]:
        """The number and the cost of settled calls, once the gateway is idle."""
        await self.wait_until_idle()
        return round(self.metric("settlements_total", outcome="settled")), await self.spent(
            "default"
        )

    async def spent(self, account: str) -> int:
        """The cost of an account's calls by the books, in nanodollars."""
        report = await self.books.ReportUsage(ledger.ReportUsageRequest(account=account))
        return sum(row.charge_nano_usd for row in report.models)

    async def left(self, upstream: FakeUpstream) -> None:
        """Waits until every connection so far to the provider is closed."""
        async with asyncio.timeout(TIMEOUT_S):
            for request in upstream.requests:
                await request.left.wait()

    async def check(self) -> None:
        """Checks the invariants after a fault.

        The next call is served; nothing leaks or is lost; no secret is logged; log, metrics and
        books agree.
        """
        reply = await self.ask(model=STEADY)
        assert (reply.status, reply.content, reply.events[-1]) == (200, TEXT, "[DONE]")
        await self.wait_until_idle()
        assert list((await self.books.VerifyLedger(ledger.VerifyLedgerRequest())).findings) == []
        await self.http.close()
        await self.until(lambda: not self._strangers())
        signs = LogAndMetrics(self.log.text, self.service.registry, self.edge)
        signs.agree(self.answers, self.errors)
        for account, charge in signs.charges().items():
            assert await self.spent(account) == charge
        told = "\n".join(self.log.text)
        for text in (PROMPT, "canary-answer"):
            assert text not in told
        answered = "\n".join(f"{reply.headers}\n{reply.text}" for reply in self.answers)
        for secret in (*leaks_of(self.key), *leaks_of(PROVIDER_KEY)):
            assert secret not in told
            assert secret not in answered

    def _strangers(self) -> set[asyncio.Task[Any]]:
        """Tasks that did not run before the first request."""
        here = asyncio.all_tasks() - self.tasks - {asyncio.current_task()}
        return {task for task in here if not _is_kept(task)}


def _is_kept(task: asyncio.Task[Any]) -> bool:
    """Whether a task serves an idle connection, of a fake server or of gRPC."""
    kept = ("FakeUpstream._serve", "Thief.", "_cython")
    return any(name in repr(task.get_coro()) for name in kept)


def _is_idle(upstream: FakeUpstream) -> bool:
    return upstream.busy == 0


def reload_with(stand: FaultStand, config: Config) -> None:
    """Reloads the service with this configuration."""
    old = stand.service.reloader
    fields = {name: getattr(old, name) for name in Reloader.__slots__}
    Reloader(**{**fields, "read": lambda: config}).reload()


Place = Mapping[str, Any]
USUAL: Place = {}
EDGE = EdgeConfig()


@asynccontextmanager
async def fault_stand(  # noqa: PLR0913 - one argument for each part
    state: Path,
    *,
    first: Place = USUAL,
    second: Place = USUAL,
    edge: EdgeConfig = EDGE,
    wire: bool = False,
    clock: Clock = SYSTEM_CLOCK,
    memory: MemoryMonitor | None = None,
    service_memory: MemoryMonitor | None = None,
    **tables: Any,
) -> AsyncIterator[FaultStand]:
    """A gateway over three providers, whose invariants are checked in the end.

    `first` and `second` are more keys of these channels, `tables` are tables of the file.
    `memory` is the memory monitor of edge and service, unless the service has its own; by default
    it reports that there is enough.
    `wire` puts gRPC over TCP between edge and service. Without a `database_url` in place of the
    table `state` there is SQLite at `state`.
    """
    log = LogCapture()
    root = logging.getLogger()
    level = root.level
    async with AsyncExitStack() as stack:
        troubled, other, steady = [
            await stack.enter_async_context(FakeUpstream()) for _ in range(3)
        ]
        steady.play(fitting)
        channels = [
            _channel("first", troubled.url, MODEL, **first),
            _channel("second", other.url, MODEL, priority=1, **second),
            _channel("steady", steady.url, STEADY),
        ]
        prices = [
            ModelConfig(
                name=name, prompt_usd_per_mtok=PROMPT_USD, completion_usd_per_mtok=COMPLETION_USD
            )
            for name in (MODEL, STEADY)
        ]
        config = Config(
            channels=tuple(channels),
            models=tuple(prices),
            state=stored(tables.pop("database_url", "")),
            **{"limits": PLACES, **tables},
        )
        root.addHandler(log)
        root.setLevel(logging.INFO)
        stack.callback(root.setLevel, level)
        stack.callback(root.removeHandler, log)
        memory = memory or MemoryMonitor(lambda: 0.0)
        service_memory = service_memory or memory
        for watched in {memory, service_memory}:
            await stack.enter_async_context(monitoring(watched))
        pressure = MemoryPressure(
            used_share=lambda: service_memory.used_share, is_short=lambda: service_memory.is_short
        )
        opening = open_service(config, state, {}, clock=clock, memory=pressure)
        service = await stack.enter_async_context(opening)
        key = await service.key_maker.make_first()
        assert key is not None, "the state is not new"
        channel: Any = service.channel()
        if wire:
            listener = listening(service.register, "127.0.0.1:0", grace_s=0)
            bound = await stack.enter_async_context(listener)
            channel = open_channel(bound, edge)
        channel = await stack.enter_async_context(channel)
        # Over a wire the edge learns of it.
        call_limit = None if wire else service.refuse_if_overloaded
        numbers = EdgeMetrics()
        listener = serving_rest(
            channel, "127.0.0.1:0", edge, metrics=numbers, call_limit=call_limit, memory=memory
        )
        address = await stack.enter_async_context(listener)
        operators = await stack.enter_async_context(service.operators_channel())
        http = await stack.enter_async_context(
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})
        )
        stand = FaultStand(
            url=f"http://{address}",
            key=key,
            service=service,
            http=http,
            first=troubled,
            second=other,
            steady=steady,
            config=config,
            log=log,
            books=ledger_grpc.LedgerServiceStub(operators),
            edge=numbers,
            tasks=asyncio.all_tasks(),
        )
        yield stand
        await stand.check()


def _channel(name: str, url: str, model: str, **more: Any) -> ChannelConfig:
    fields = {"dialect": "openai", "base_url": url, "models": {model: "m"}, **more}
    return ChannelConfig(name=name, key=Secret(PROVIDER_KEY), **fields)
