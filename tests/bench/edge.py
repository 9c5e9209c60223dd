"""CPU time of the edge alone: from a request's bytes to its answer's, without a service's work.

Run from the checkout: `python -m tests.bench.edge`, with `--heap default` as glibc manages memory,
with `--log queue` with the standard library's logging thread, with `--log none` without a log.
Prints microseconds of this process's CPU for a request, the lowest of several runs: as clients
send it, and the same with a space that sends it through aiohttp's parser, router and responses.
There is no socket; a stream has 200 pieces of text.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import gc
import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import uvloop

from gateway.app import create_app
from gateway.backend import Backend, ServiceState
from gateway.config import EdgeConfig
from gateway.http.body_admission import no_limit
from gateway.http.runner import EdgeRunner
from services.common import json_logs
from services.common.heap import keep_freed_memory
from services.common.key_format import PREFIX, checksum
from services.common.log_handler import NonBlockingHandler
from services.domain.call_options import CallOptions
from services.domain.completion import Choice, Completion
from services.domain.conversation import Message, TextPart
from services.domain.embeddings import EmbeddingRequest, Embeddings
from services.domain.events import Batch, ChoiceFinished, Finished, Started, TextDelta
from services.domain.model import Model
from services.domain.prompt_count import PromptCount, PromptCountRequest
from services.domain.spec import CompletionRequest
from services.domain.usage import Usage

RUNS = 15
KEY = PREFIX + "0" * 43 + checksum("0" * 43)
TEXT = "You are a careful assistant. Answer in one short paragraph. " * 16
PICTURE = "data:image/png;base64,iVBORw0KGgo" + "A" * ((1 << 20) + 1)
READ_BYTES = 256 * 1024
"""Bytes that uvloop reads at once."""

MODEL = "m"
BEGUN_S = 1_700_000_000
USAGE = Usage(prompt_token_count=10, completion_token_count=20, total_token_count=30)
ANSWER = Completion(
    completion_id="chatcmpl-1",
    model=MODEL,
    create_time_s=BEGUN_S,
    choices=[
        Choice(
            message=Message(role="assistant", content=[TextPart(text=TEXT[:400])]),
            finish_reason="stop",
        )
    ],
    usage=USAGE,
)


def stream(size: int) -> Sequence[Batch]:
    """200 pieces of text in batches of a size."""
    started = Started(completion_id="chatcmpl-1", model=MODEL, create_time_s=BEGUN_S)
    pieces: list[Batch] = [[TextDelta(" token")] * size] * (200 // size)
    return [[started], *pieces, [ChoiceFinished(finish_reason="stop"), Finished(usage=USAGE)]]


STREAMS: Mapping[str, Sequence[Batch]] = {"burst": stream(20), "paced": stream(1)}


class IdleBackend(Backend):
    """Backend that answers without work. The model selects the stream."""

    call_limit = staticmethod(no_limit)

    async def drain(self, timeout_s: float) -> None:
        """No call is in flight."""

    async def whole(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Completion:
        """One answer."""
        del request, call, headers
        return ANSWER

    def stream(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> AsyncGenerator[Batch, None]:
        """One of the streams."""
        del call, headers
        return self._batches(STREAMS[request.spec.model])

    async def _batches(self, batches: Sequence[Batch]) -> AsyncGenerator[Batch, None]:
        for batch in batches:
            yield batch

    async def embed(
        self, request: EmbeddingRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Embeddings:
        """No vectors."""
        del call, headers
        return Embeddings(model=request.spec.model)

    async def count_prompt(self, request: PromptCountRequest, call: CallOptions) -> PromptCount:
        """No tokens."""
        del request, call
        return PromptCount()

    async def models(self, call: CallOptions) -> Sequence[Model]:
        """No model."""
        del call
        return []

    async def model(self, name: str, call: CallOptions) -> Model:
        """A model of that name."""
        del call
        return Model(name=name)

    async def check_key(self, key: str, request_id: str) -> bool:
        """Any key is valid."""
        del key, request_id
        return True

    async def state(self, timeout_s: float) -> ServiceState:
        """Ready."""
        del timeout_s
        return "ready"


class Wire(asyncio.Transport):
    """Transport that takes the answer's bytes, and signals when it is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = asyncio.Event()
        self._streams = False

    def write(self, data: Any) -> None:
        """Compares the last bytes with the end of an answer."""
        if data.startswith(b"HTTP/1.1"):
            self._streams = b"chunked" in data[:600]
        if not self._streams or data.endswith(b"0\r\n\r\n"):
            self.whole.set()

    def is_closing(self) -> bool:
        """The transport never closes."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The buffer is always empty."""

    def pause_reading(self) -> None:
        """Do nothing: bodies are fed in any case."""

    def resume_reading(self) -> None:
        """Do nothing: see `pause_reading`."""

    def close(self) -> None:
        """Do nothing."""


def body(model: str, content_json: str, *, streamed: bool = False) -> str:
    """A request for a completion."""
    more = ',"stream":true' if streamed else ""
    return f'{{"model":"{model}","messages":[{{"role":"user","content":{content_json}}}]{more}}}'


CASES: Mapping[str, tuple[str, str, int]] = {
    "refused: no such key": ("nonsense", body("m", f'"{TEXT}"'), 400),
    "whole, 1 KB": (KEY, body("m", f'"{TEXT}"'), 400),
    "stream, 20 pieces at a time": (KEY, body("burst", f'"{TEXT}"', streamed=True), 200),
    "stream, one at a time": (KEY, body("paced", f'"{TEXT}"', streamed=True), 100),
    "picture of 1 MB": (
        KEY,
        body("m", f'[{{"type":"image_url","image_url":{{"url":"{PICTURE}"}}}}]'),
        20,
    ),
}
"""Key, body, and requests in a run."""


def request(key: str, text: str, host: str) -> Sequence[bytes]:
    """The bytes of requests, in the pieces in which they are read."""
    sent = text.encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    data = head.encode() + sent
    return [data[at : at + READ_BYTES] for at in range(0, len(data), READ_BYTES)]


async def measure(runner: EdgeRunner, pieces: Sequence[bytes], count: int) -> float:
    """Microseconds of CPU for a request, on one connection."""
    assert runner.server is not None
    connection, wire = runner.server(), Wire()
    connection.connection_made(wire)
    runs = []
    for _ in range(RUNS):
        begun = time.process_time()
        for _ in range(count):
            wire.whole.clear()
            for piece in pieces:
                connection.data_received(piece)
            await wire.whole.wait()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        runs.append((time.process_time() - begun) / count * 1e6)
    connection.connection_lost(None)
    return min(runs)


async def main() -> None:
    """Prints the table."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as unused:
        runner = EdgeRunner(create_app(unused, EdgeConfig(), backend=IdleBackend()))
        await runner.setup()
        gc.freeze()
        sys.stdout.write(f"{'us of CPU a request':30}{'usual':>10}{'by aiohttp':>12}\n")
        for name, (key, text, count) in CASES.items():
            row = [await measure(runner, request(key, text, at), count) for at in ("a", "a ")]
            sys.stdout.write(f"{name:30}{row[0]:10.1f}{row[1]:12.1f}\n")


def queued(handler: logging.Handler) -> logging.Handler:
    """The standard library's log handler that does not block: a queue, and a thread that writes."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    atexit.register(listener.stop)
    return logging.handlers.QueueHandler(records)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--heap", choices=("ours", "default"), default="ours")
    parser.add_argument("--log", choices=("ours", "queue", "none"), default="ours")
    options = parser.parse_args()
    if options.heap == "ours":
        keep_freed_memory()
    with Path("/dev/null").open("w") as nowhere:
        out = logging.StreamHandler(nowhere)
        out.setFormatter(json_logs.JsonFormatter())
        handlers: Mapping[str, Callable[[], logging.Handler]] = {
            "ours": lambda: NonBlockingHandler(nowhere.fileno()),
            "queue": lambda: queued(out),
            "none": logging.NullHandler,
        }
        json_logs.configure(handlers[options.log]())
        uvloop.run(main())
