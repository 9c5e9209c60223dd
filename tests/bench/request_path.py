"""The path of a chat completion through the code: files, calls and coroutines that it passes.

    python -m tests.bench.request_path [--calls]

Edge and service run in this process, on real sockets, before a provider that sends five events.
After one request that fills caches and pools, streamed and whole completions are traced in turn,
each from the first byte of the request until the gateway has settled it. The figures are those of
the trace with the fewest calls. Counted are only functions in `gateway/` and `services/`, and only
in the event loop's thread: SQLite's worker is not on the path, nor are periodic tasks.

A coroutine that is resumed is not called again: resumptions are counted apart. The provider sends
an event of the stream only after the client has received the one before. A message passes the
coroutines that yield or return in between, and the one that writes it; those that only wait for
these are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import dis
import inspect
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from services.config import ChannelConfig, ModelConfig
from tests.stand.gateway import Gateway, running
from tests.stand.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    FakeUpstream,
    Request,
    Script,
    Step,
    json_answer,
    sse,
)

ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT / folder}/" for folder in ("gateway", "services"))
AFTER_AWAIT = 3
"""The argument of the instruction RESUME behind an `await`; behind a `yield` it is 1. Higher
bits have another meaning."""
PERIODIC = frozenset(
    {"turns", "health", "loop lag", "ledger heartbeat", "idempotency sweep", "call log"}
)
"""Names of tasks that run whether there are requests or not."""
COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

MODEL = "house/model"
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}
WORDS = ("one", "two", "three", "four")
"""Four events; the fifth is the end, with the usage."""
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
ROUNDS = 8
"""Completions of each kind that are traced. The first of each fills caches and pools."""
QUIET_S = 0.02
"""Time without a call of the gateway's functions after which a request counts as settled."""


@dataclass(slots=True)
class Trace:
    """Calls of the gateway's functions while a request is traced."""

    calls: Counter[str] = field(default_factory=Counter)
    """By function, as `file:name`."""
    files: list[str] = field(default_factory=list)
    """The file of each call, in order."""
    resumptions: int = 0
    """Resumptions of coroutines and generators, which are not among the calls."""
    coroutines_per_message: list[int] = field(default_factory=list)
    """The coroutines that each traced message of a stream passes."""
    _started: set[FrameType] = field(default_factory=set)
    _passed: set[FrameType] = field(default_factory=set)

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Counts a call. A profile function of `sys.setprofile`."""
        code = frame.f_code
        if event not in {"call", "return"} or not code.co_filename.startswith(OURS):
            return
        task = asyncio.current_task()
        if task is not None and task.get_name() in PERIODIC:
            return
        if event == "return":
            if code.co_flags & COROUTINE and not _awaits(frame):
                self._passed.add(frame)
            return
        if code.co_flags & (COROUTINE | inspect.CO_GENERATOR):
            if frame in self._started:
                self.resumptions += 1
                return
            self._started.add(frame)
        file = str(Path(code.co_filename).relative_to(ROOT))
        self.files.append(file)
        self.calls[f"{file}:{code.co_qualname}"] += 1

    def begin_message(self) -> None:
        """Forgets which coroutines have run so far."""
        self._passed.clear()

    def end_message(self) -> None:
        """Counts the coroutines that have given something on since, and the one that writes it."""
        self.coroutines_per_message.append(len(self._passed) + 1)

    @property
    def steps(self) -> int:
        """Calls that go to another file than the one before."""
        return sum(
            before != after for before, after in zip(self.files, self.files[1:], strict=False)
        )


def _awaits(frame: FrameType) -> bool:
    """Whether a coroutine that returns to the loop only waits, and neither yields nor ends."""
    code = frame.f_code.co_code
    # Python 3.13 has gone on to the instruction behind it.
    yields = dis.opname[code[frame.f_lasti]] == "YIELD_VALUE"
    after = frame.f_lasti + 2 * yields
    return dis.opname[code[after]] == "RESUME" and code[after + 1] & 3 == AFTER_AWAIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of a trace."""

    files: int
    calls: int
    steps: int
    """Calls from one file to another."""
    resumptions: int
    coroutines_per_message: Sequence[int]
    """For each event but the first and the last, in which start and end of the stream take part."""

    @classmethod
    def of(cls, trace: Trace) -> Figures:
        """The figures of a trace."""
        return cls(
            files=len(set(trace.files)),
            calls=trace.calls.total(),
            steps=trace.steps,
            resumptions=trace.resumptions,
            coroutines_per_message=tuple(trace.coroutines_per_message),
        )


class PacedProvider:
    """Sends the events of a stream one by one, each when it is released."""

    def __init__(self) -> None:
        self._released: list[asyncio.Event] = []

    def __call__(self, request: Request) -> Script:
        """The script of one answer."""
        if not request.json().get("stream"):
            message = {"role": "assistant", "content": " ".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return [json_answer({"id": "1", "choices": [choice], "usage": USAGE})]
        events = [_piece({"content": word}) for word in WORDS]
        events.append({**_piece({}, "stop"), "usage": USAGE})
        self._released = [asyncio.Event() for _ in events]
        steps: list[Step] = [SSE_HEAD]
        for event, released in zip(events, self._released, strict=True):
            steps += [released, sse(event)]
        return [*steps, sse("[DONE]") + LAST_CHUNK]

    def release(self, number: int) -> None:
        """Releases the event of that number."""
        self._released[number].set()


def _piece(delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "choices": [choice]}


@contextmanager
def tracing() -> Iterator[Trace]:
    """A trace of the calls in this thread."""
    trace = Trace()
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(None)


class KeepAliveClient:
    """A keep-alive connection to the gateway."""

    def __init__(
        self, gateway: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._host = urlsplit(gateway.url).netloc
        self._key = gateway.key
        self.reader = reader
        self._writer = writer

    def ask(self, *, stream: bool) -> None:
        """Asks for a chat completion."""
        self.post("/v1/chat/completions", {**ASKED, "stream": stream})

    def post(self, path: str, asked: Mapping[str, Any]) -> None:
        """Sends a request, without white space, as SDKs and coding agents do."""
        body = json.dumps(asked, separators=(",", ":")).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)

    async def answer(self) -> bytes:
        """The body of a whole answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        (length,) = (
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        return await self.reader.readexactly(length)

    def close(self) -> None:
        """Closes the connection."""
        self._writer.close()


async def trace_stream(
    client: KeepAliveClient, upstream: FakeUpstream, provider: PacedProvider
) -> Trace:
    """The trace of a streamed completion."""
    number = len(upstream.requests)
    with tracing() as trace:
        client.ask(stream=True)
        await upstream.request(number)
        for position, word in enumerate(WORDS):
            if position:
                await _settled(trace)
                trace.begin_message()
            provider.release(position)
            await client.reader.readuntil(word.encode())
            if position:
                trace.end_message()
        provider.release(len(WORDS))
        await client.reader.readuntil(b"0\r\n\r\n")
        await _settled(trace)
    return trace


async def trace_whole(client: KeepAliveClient) -> Trace:
    """The trace of a whole completion."""
    with tracing() as trace:
        client.ask(stream=False)
        await client.answer()
        await _settled(trace)
    return trace


async def _settled(trace: Trace) -> None:
    """Returns when no function of the gateway has run for a while."""
    before = -1
    while before != len(trace.files):
        before = len(trace.files)
        await asyncio.sleep(QUIET_S)


async def measure(state: Path) -> tuple[Trace, Trace]:
    """The shortest traces of a streamed and of a whole completion."""
    provider = PacedProvider()
    async with FakeUpstream() as upstream:
        upstream.play(provider)
        channel = ChannelConfig(
            name="house", dialect="openai", base_url=upstream.url, models={MODEL: "m"}
        )
        async with running(state, channel, models=[ModelConfig(name=MODEL)]) as gateway:
            address = urlsplit(gateway.url)
            client = KeepAliveClient(
                gateway, *await asyncio.open_connection(address.hostname, address.port)
            )
            try:
                traces = [
                    (await trace_stream(client, upstream, provider), await trace_whole(client))
                    for _ in range(ROUNDS)
                ]
            finally:
                client.close()
    streamed, whole = zip(*traces[1:], strict=True)
    return min(streamed, key=_calls), min(whole, key=_calls)


def _calls(trace: Trace) -> int:
    return trace.calls.total()


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description="Trace a chat completion through the code.")
    parser.add_argument("--calls", action="store_true", help="list the functions by calls")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-path-") as directory:
        traces = asyncio.run(measure(Path(directory)))
    for name, trace in zip(("streamed", "whole"), traces, strict=True):
        figures = Figures.of(trace)
        print(f"{name}: {figures.files} files, {figures.calls} calls")
        print(f"  from file to file: {figures.steps}; coroutines resumed: {figures.resumptions}")
        if figures.coroutines_per_message:
            print(f"  coroutines per message: {figures.coroutines_per_message}")
        if options.calls:
            for function, count in trace.calls.most_common():
                print(f"  {count:4} {function}")


if __name__ == "__main__":
    main()
