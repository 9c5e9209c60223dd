"""A provider whose answers are made word by word, by a test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    SSE_HEAD,
    Request,
    Script,
    UpstreamConnection,
    json_answer,
    sse,
)

WORD = "tick"
"""Four bytes: one token, where the gateway has to count."""

PROMPT_TOKENS = 1


@dataclass(slots=True)
class PlannedAnswer:
    """The answer of one call."""

    words: int
    """The number of words that are sent at once."""
    refused: bool = False
    """Whether the request is refused."""
    held: bool = False
    """Whether the answer continues by `steps`."""
    steps: asyncio.Queue[int | None] = field(default_factory=asyncio.Queue)
    """Numbers of further words; 0 ends the answer, None closes the connection."""


class StepwiseProvider:
    """Answers a call by the planned answer of its prompt."""

    def __init__(self) -> None:
        self.answers: dict[str, PlannedAnswer] = {}
        """Planned answers by prompt."""

    def __call__(self, request: Request) -> Script:
        """The script of a planned answer."""
        asked = request.json()
        planned = self.answers[asked["messages"][0]["content"]]
        if planned.refused:
            return [json_answer({"error": {"message": "No."}}, 400)]
        if not asked.get("stream"):
            message = {"role": "assistant", "content": WORD * planned.words}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = {"id": "1", "choices": [choice], "usage": _usage(planned.words)}
            return [json_answer(body)]
        words = [_piece({"content": WORD}) for _ in range(planned.words)]
        if not planned.held:
            return [SSE_HEAD, sse(*words, *_end(planned.words)), LAST_CHUNK]

        async def follow(line: UpstreamConnection) -> None:
            await _follow(planned, line)

        return [SSE_HEAD, sse(*words), follow, CUT]


async def _follow(planned: PlannedAnswer, line: UpstreamConnection) -> None:
    """Follows the steps until the end, or until the gateway disconnects."""
    said = planned.words
    leaving = asyncio.ensure_future(line.reader.read(1))
    try:
        while True:
            order = asyncio.ensure_future(planned.steps.get())
            await asyncio.wait({leaving, order}, return_when=asyncio.FIRST_COMPLETED)
            if not order.done():
                order.cancel()
                return
            words = order.result()
            if words is None:
                return
            if words == 0:
                line.writer.write(sse(*_end(said)) + LAST_CHUNK)
                await line.writer.drain()
                return
            said += words
            line.writer.write(sse(*(_piece({"content": WORD}) for _ in range(words))))
            await line.writer.drain()
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


def _end(words: int) -> list[Any]:
    return [_piece({}, "stop"), {"choices": [], "usage": _usage(words)}, "[DONE]"]


def _usage(words: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": words,
        "total_tokens": PROMPT_TOKENS + words,
    }


def _piece(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "choices": [choice]}
