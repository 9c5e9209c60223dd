"""What the edge costs by itself: from a request's bytes to its answer's, without a service's work.

Run from the checkout: `python -m tests.bench.edge`, with `--heap default` as glibc manages memory,
with `--log queue` with the standard library's logging thread, with `--log none` without a log.
Prints microseconds of this process's CPU for a request, the lowest of several runs: as clients
send it, and the same with a space that sends it through aiohttp's parser, router and responses.
There is no socket; a stream has 200 chunks.
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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop
from google.protobuf import timestamp_pb2
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import content_pb2 as content
from pomogator.chat.v1 import usage_pb2

from gateway.app import create_app
from gateway.config import EdgeConfig
from gateway.http.runner import EdgeRunner
from services.common import json_logs
from services.common.heap import keep_freed_memory
from services.common.key_format import PREFIX, checksum
from services.common.log_handler import NonBlockingHandler
from services.inprocess import InProcessChannel

RUNS = 15
KEY = PREFIX + "0" * 43 + checksum("0" * 43)
TEXT = "You are a careful assistant. Answer in one short paragraph. " * 16
PICTURE = "data:image/png;base64,iVBORw0KGgo" + "A" * ((1 << 20) + 1)
READ_BYTES = 256 * 1024
"""What uvloop reads at once."""

BEGUN = timestamp_pb2.Timestamp(seconds=1_700_000_000)
USAGE = usage_pb2.Usage(prompt_token_count=10, completion_token_count=20, total_token_count=30)
MESSAGE = content.Message(
    role=content.ROLE_ASSISTANT, content=[content.ContentPart(text=TEXT[:400])]
)
STOP = pb.FINISH_REASON_STOP
ANSWER = pb.CreateChatCompletionResponse(
    completion_id="chatcmpl-1",
    model="m",
    create_time=BEGUN,
    choices=[pb.Choice(message=MESSAGE, finish_reason=STOP)],
    usage=USAGE,
)
FIRST = pb.ChatCompletionChunk(
    started=pb.CompletionStarted(completion_id="chatcmpl-1", model="m", create_time=BEGUN)
)
TOKEN = pb.ChatCompletionChunk(delta=pb.CompletionDelta(text=" token"))
LAST = (
    pb.ChatCompletionChunk(choice_finished=pb.ChoiceFinished(finish_reason=STOP)),
    pb.ChatCompletionChunk(finished=pb.CompletionFinished(usage=USAGE)),
)


def stream(batch: int) -> Sequence[pb.StreamChatCompletionResponse]:
    """200 chunks in messages of so many."""
    tokens = [pb.StreamChatCompletionResponse(chunks=[TOKEN] * batch)] * (200 // batch)
    begin, end = ([FIRST], LAST)
    return [
        pb.StreamChatCompletionResponse(chunks=begin),
        *tokens,
        pb.StreamChatCompletionResponse(chunks=end),
    ]


STREAMS: Mapping[str, Sequence[pb.StreamChatCompletionResponse]] = {
    "burst": stream(20),
    "paced": stream(1),
}


class Idle(pb_grpc.ChatCompletionServiceServicer):
    """Answers without work. The model says which stream."""

    async def CreateChatCompletion(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """One answer."""
        return ANSWER

    async def StreamChatCompletion(  # noqa: N802
        self,
        request: Any,
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[Any]:
        """One of the streams."""
        for message in STREAMS[request.spec.model]:
            yield message


class Wire(asyncio.Transport):
    """Takes what is sent, and tells when an answer is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = asyncio.Event()
        self._streams = False

    def write(self, data: Any) -> None:
        """Looks at the two ends."""
        if data.startswith(b"HTTP/1.1"):
            self._streams = b"chunked" in data[:600]
        if not self._streams or data.endswith(b"0\r\n\r\n"):
            self.whole.set()

    def is_closing(self) -> bool:
        """Never."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def pause_reading(self) -> None:
        """Bodies come whether there is room or not."""

    def resume_reading(self) -> None:
        """They come anyway."""

    def close(self) -> None:
        """There is nothing to close."""


def body(model: str, content_json: str, *, streamed: bool = False) -> str:
    """A request for a completion."""
    more = ',"stream":true' if streamed else ""
    return f'{{"model":"{model}","messages":[{{"role":"user","content":{content_json}}}]{more}}}'


CASES: Mapping[str, tuple[str, str, int]] = {
    "refused: no such key": ("nonsense", body("m", f'"{TEXT}"'), 400),
    "whole, 1 KB": (KEY, body("m", f'"{TEXT}"'), 400),
    "stream, 20 chunks at a time": (KEY, body("burst", f'"{TEXT}"', streamed=True), 200),
    "stream, one at a time": (KEY, body("paced", f'"{TEXT}"', streamed=True), 100),
    "picture of 1 MB": (
        KEY,
        body("m", f'[{{"type":"image_url","image_url":{{"url":"{PICTURE}"}}}}]'),
        20,
    ),
}
"""Key, body, and requests in a run."""


def request(key: str, text: str, host: str) -> Sequence[bytes]:
    """What arrives, in the pieces in which it is read."""
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
    async with InProcessChannel(
        lambda server: pb_grpc.add_ChatCompletionServiceServicer_to_server(Idle(), server)
    ) as channel:
        runner = EdgeRunner(create_app(channel, EdgeConfig()))
        await runner.setup()
        gc.freeze()
        sys.stdout.write(f"{'us of CPU a request':30}{'usual':>10}{'by aiohttp':>12}\n")
        for name, (key, text, count) in CASES.items():
            row = [await measure(runner, request(key, text, at), count) for at in ("a", "a ")]
            sys.stdout.write(f"{name:30}{row[0]:10.1f}{row[1]:12.1f}\n")


def queued(handler: logging.Handler) -> logging.Handler:
    """The standard library's way not to block: a queue, and a thread that writes."""
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
