"""Opcodes that our functions take for one whole answer, by the API and the channel.

    python -m tests.bench.opcodes [--requests A,B] [--functions]

Edge and service run in this process, on real sockets. Counted are the instructions of Python's
interpreter in `gateway/` and `services/`, in the event loop's thread and without periodic tasks:
they repeat to about one percent on any machine, where times vary by a third. The figures are those
of the request with the fewest. What libraries and the kernel do for them is not counted.

A request passes as it is (`raw_…`) where its API is that of the channel; the others are chat
completions. Each has one short text, and its answer another.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from services.config import ChannelConfig, ModelConfig
from tests.bench.request_path import (
    ASKED,
    MODEL,
    OURS,
    PERIODIC,
    ROOT,
    USAGE,
    WORDS,
    KeepAliveClient,
)
from tests.stand.gateway import running
from tests.stand.upstream import FakeUpstream, json_answer

ROUNDS = 6
"""Requests of each kind that are counted, after one that fills caches and pools."""
QUIET_S = 0.05
"""Time after an answer in which the gateway settles the call."""

CHAT = "/v1/chat/completions"
TEXT = " ".join(WORDS)
OTHER_USAGE = {"input_tokens": USAGE["prompt_tokens"], "output_tokens": USAGE["completion_tokens"]}
MESSAGE = {"role": "assistant", "content": TEXT}
COMPLETION = {
    "id": "1",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "usage": USAGE,
}
ANTHROPIC_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": OTHER_USAGE,
}
OUTPUT_TEXT = {"type": "output_text", "text": TEXT, "annotations": []}
ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "m",
    "output": [{**ITEM, "content": [OUTPUT_TEXT]}],
    "usage": {**OTHER_USAGE, "total_tokens": USAGE["total_tokens"]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of request: its path and body, the channel's dialect, the provider's answer."""

    dialect: str
    answer: Mapping[str, Any]
    path: str = CHAT
    asked: Mapping[str, Any] = field(default_factory=lambda: ASKED)


KINDS = {
    "openai": Kind(dialect="openai", answer=COMPLETION),
    "anthropic": Kind(dialect="anthropic", answer=ANTHROPIC_MESSAGE),
    "responses": Kind(dialect="openai-responses", answer=RESPONSE),
    "raw_messages": Kind(dialect="anthropic", answer=ANTHROPIC_MESSAGE, path="/v1/messages"),
    "raw_responses": Kind(
        dialect="openai-responses",
        answer=RESPONSE,
        path="/v1/responses",
        asked={"model": MODEL, "input": "Hello", "max_output_tokens": 50},
    ),
}


async def count_opcodes(kind: Kind, state: Path) -> Counter[str]:
    """Opcodes of each function, as `file:name`, for one request."""
    async with FakeUpstream() as upstream:
        upstream.play(lambda _request: [json_answer(kind.answer)])
        channel = ChannelConfig(
            name="house", dialect=kind.dialect, base_url=upstream.url, models={MODEL: "m"}
        )
        async with running(state, channel, models=[ModelConfig(name=MODEL)]) as gateway:
            address = urlsplit(gateway.url)
            streams = await asyncio.open_connection(address.hostname, address.port)
            client = KeepAliveClient(gateway, *streams)
            try:
                counts = [await _count(client, kind) for _ in range(1 + ROUNDS)]
            finally:
                client.close()
    return min(counts[1:], key=Counter.total)


async def _count(client: KeepAliveClient, kind: Kind) -> Counter[str]:
    with _counting() as opcodes:
        client.post(kind.path, kind.asked)
        answer = await client.answer()
        await asyncio.sleep(QUIET_S)
    if TEXT.encode() not in answer:
        raise SystemExit(f"not the provider's answer: {answer!r}")
    return opcodes


@contextmanager
def _counting() -> Iterator[Counter[str]]:
    """Opcodes by function in this thread."""
    opcodes: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "opcode":
            code = frame.f_code
            opcodes[f"{Path(code.co_filename).relative_to(ROOT)}:{code.co_qualname}"] += 1
        return count

    def enter(frame: FrameType, _event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        task = asyncio.current_task()
        if task is not None and task.get_name() in PERIODIC:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return count

    sys.settrace(enter)
    try:
        yield opcodes
    finally:
        sys.settrace(None)


def main() -> None:
    """Prints a line for each kind of request."""
    parser = argparse.ArgumentParser(description="Count opcodes for one whole answer.")
    parser.add_argument("--requests", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--functions", action="store_true", help="list the functions by opcodes")
    options = parser.parse_args()
    for name in options.requests.split(","):
        with tempfile.TemporaryDirectory(prefix="pomogator-opcodes-") as state:
            opcodes = asyncio.run(count_opcodes(KINDS[name], Path(state)))
        print(f"{name:14} {opcodes.total():6}")
        if options.functions:
            for function, count in opcodes.most_common():
                print(f"  {count:6} {function}")


if __name__ == "__main__":
    main()
