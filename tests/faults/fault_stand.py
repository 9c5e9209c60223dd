"""Fault stand: a gateway over faulty providers, with its log, its metrics and its ledger.

Two channels serve `house/model`: `first`, and `second` if `first` fails. A third, `steady`, serves
`house/steady` without faults, so that a test can check that the gateway still serves calls.
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
from services.rpc.listener import listening
from services.serving.core_backend import CoreBackend
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
PROMPT_CHARGE = 9 * 1_000
"""The cost of `PROMPT` as the gateway counts it: a token for four bytes, and four for a message."""

TIMEOUT_S = 10.0

HIGH_LIMITS = (LimitConfig(key="*", concurrency=1000), LimitConfig(channel="*", concurrency=1000))
"""Limits that no test reaches. Every call takes a lease of each, which a fault could leak."""

IDLE_GAUGES = (
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
    """The answer in the requested form: a stream or a JSON document."""
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
        """Keep one line."""
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
    """A gateway with its providers, its responses and its log."""

    url: str
    key: str
    service: Service
    http: aiohttp.ClientSession
    first: FakeUpstream
    second: FakeUpstream
    steady: FakeUpstream
    config: Config
    log: LogCapture
    ledger: ledger_grpc.LedgerServiceStub
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
        """Set the scripts of the providers. By default the second provider answers."""
        self.first.play(*first)
        self.second.play(second)

    def post(self, body: Any = None, **kwargs: Any) -> Any:
        """Return a request as a context manager; the test reads the response."""
        asked = {"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": 50}
        return self.http.post(self.url + PATH, json={**asked, **(body or {})}, **kwargs)

    async def ask(self, *, headers: Mapping[str, str] | None = None, **fields: Any) -> ReadResponse:
        """Request a stream, unless the fields say otherwise, and read all of it."""
        async with self.post(fields, headers=headers) as answer:
            return await self.read(answer)

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None) -> ReadResponse:
        """Send bytes as the body of a request, and read the response."""
        named = {"Content-Type": "application/json", **(headers or {})}
        async with self.http.post(self.url + PATH, data=BytesIO(body), headers=named) as answer:
            return await self.read(answer)

    @asynccontextmanager
    async def dial(
        self, **fields: Any
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Request a stream over a plain socket, which is reset on exit."""
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
        """Read a response to its end."""
        response = await read(answer)
        self.answers.append(response)
        return response

    def metric(self, name: str, **labels: str) -> float:
        """The current value of a metric of the service; 0 if it has no sample yet."""
        registry = self.service.registry
        return registry.get_sample_value(f"pomogator_{name}", labels) or 0.0

    def edge_sample(self, name: str) -> float:
        """The current value of a metric of the edge that has no labels."""
        wanted = f"pomogator_edge_{name}"
        samples = (sample for metric in self.edge.collect() for sample in metric.samples)
        (value,) = (sample.value for sample in samples if sample.name == wanted)
        return value

    async def until(self, holds: Callable[[], object]) -> None:
        """Poll until a condition holds."""
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():  # noqa: ASYNC110 - no event reports these conditions
                await asyncio.sleep(0.005)

    async def wait_until_idle(self) -> None:
        """Wait until no call runs and no hold, lease or connection is left."""
        for name in IDLE_GAUGES:
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
        """The cost of an account's calls by the ledger, in nanodollars."""
        report = await self.ledger.ReportUsage(ledger.ReportUsageRequest(account=account))
        return sum(row.charge_nano_usd for row in report.models)

    async def wait_until_disconnected(self, upstream: FakeUpstream) -> None:
        """Wait until every connection of a request to the provider is closed."""
        async with asyncio.timeout(TIMEOUT_S):
            for request in upstream.requests:
                await request.left.wait()

    async def check(self) -> None:
        """Check the invariants after a fault.

        The next call is served; nothing leaks or is lost; no secret is logged; log, metrics and
        ledger agree.
        """
        reply = await self.ask(model=STEADY)
        assert (reply.status, reply.content, reply.events[-1]) == (200, TEXT, "[DONE]")
        await self.wait_until_idle()
        assert list((await self.ledger.VerifyLedger(ledger.VerifyLedgerRequest())).findings) == []
        await self.http.close()
        await self.until(lambda: not self._leaked_tasks())
        records = LogAndMetrics(self.log.text, self.service.registry, self.edge)
        records.agree(self.answers, self.errors)
        for account, charge in records.charges().items():
            assert await self.spent(account) == charge
        logged = "\n".join(self.log.text)
        for text in (PROMPT, "canary-answer"):
            assert text not in logged
        answered = "\n".join(f"{reply.headers}\n{reply.text}" for reply in self.answers)
        for secret in (*leaks_of(self.key), *leaks_of(PROVIDER_KEY)):
            assert secret not in logged
            assert secret not in answered

    def _leaked_tasks(self) -> set[asyncio.Task[Any]]:
        """Tasks that did not run before the first request, without those of idle connections."""
        new = asyncio.all_tasks() - self.tasks - {asyncio.current_task()}
        return {task for task in new if not _serves_idle_connection(task)}


def _serves_idle_connection(task: asyncio.Task[Any]) -> bool:
    """Whether a task serves an idle connection: of a fake server, of gRPC, or a relay's stream."""
    names = ("FakeUpstream._serve", "Thief.", "_cython", "RelayLink", "RelayStream.read")
    return any(name in repr(task.get_coro()) for name in names)


def _is_idle(upstream: FakeUpstream) -> bool:
    return upstream.busy == 0


def reload_with(stand: FaultStand, config: Config) -> None:
    """Reload the service with this configuration."""
    old = stand.service.reloader
    fields = {name: getattr(old, name) for name in Reloader.__slots__}
    Reloader(**{**fields, "read": lambda: config}).reload()


ChannelFields = Mapping[str, Any]
NO_FIELDS: ChannelFields = {}
EDGE = EdgeConfig()


@asynccontextmanager
async def fault_stand(  # noqa: PLR0913 - one argument for each part
    state: Path,
    *,
    first: ChannelFields = NO_FIELDS,
    second: ChannelFields = NO_FIELDS,
    edge: EdgeConfig = EDGE,
    wire: bool = False,
    clock: Clock = SYSTEM_CLOCK,
    memory: MemoryMonitor | None = None,
    service_memory: MemoryMonitor | None = None,
    **tables: Any,
) -> AsyncIterator[FaultStand]:
    """Open a gateway over three providers, and check its invariants at the end.

    `first` and `second` are further fields of these channels, `tables` are tables of the
    configuration. `memory` is the memory monitor of edge and service, unless the service has its
    own; by default it reports enough memory. `wire` connects edge and service by gRPC over TCP.
    `database_url`, in place of the table `state`, selects the database; by default it is SQLite in
    the folder `state`.
    """
    log = LogCapture()
    root = logging.getLogger()
    level = root.level
    async with AsyncExitStack() as stack:
        first_upstream, second_upstream, steady = [
            await stack.enter_async_context(FakeUpstream()) for _ in range(3)
        ]
        steady.play(fitting)
        channels = [
            _channel("first", first_upstream.url, MODEL, **first),
            _channel("second", second_upstream.url, MODEL, priority=1, **second),
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
            **{"limits": HIGH_LIMITS, **tables},
        )
        root.addHandler(log)
        root.setLevel(logging.INFO)
        stack.callback(root.setLevel, level)
        stack.callback(root.removeHandler, log)
        memory = memory or MemoryMonitor(lambda: 0.0)
        service_memory = service_memory or memory
        for watched in {memory, service_memory}:
            await stack.enter_async_context(monitoring(watched))
        opening = open_service(config, state, {}, clock=clock, memory=service_memory)
        service = await stack.enter_async_context(opening)
        key = await service.key_maker.make_first()
        assert key is not None, "the state is not new"
        channel: Any = service.channel()
        if wire:
            listener = listening(service.register, "127.0.0.1:0", grace_s=0)
            bound = await stack.enter_async_context(listener)
            channel = open_channel(bound, edge)
        channel = await stack.enter_async_context(channel)
        edge_metrics = EdgeMetrics()
        listener = serving_rest(
            channel,
            "127.0.0.1:0",
            edge,
            metrics=edge_metrics,
            memory=memory,
            backend=None if wire else CoreBackend(service, channel),
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
            first=first_upstream,
            second=second_upstream,
            steady=steady,
            config=config,
            log=log,
            ledger=ledger_grpc.LedgerServiceStub(operators),
            edge=edge_metrics,
            tasks=asyncio.all_tasks(),
        )
        yield stand
        await stand.check()


def _channel(name: str, url: str, model: str, **more: Any) -> ChannelConfig:
    fields = {"dialect": "openai", "base_url": url, "models": {model: "m"}, **more}
    return ChannelConfig(name=name, key=Secret(PROVIDER_KEY), **fields)
