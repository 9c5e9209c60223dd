"""A provider that answers at its own pace."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

from tests.fakes.upstream import (
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    Line,
    Request,
    Script,
    json_answer,
    sse,
)

PIECES_MAX = 12
PAUSE_S = (0.03, 0.03, 0.03, 0.5)
"""The longest time between two pieces of an answer."""


class Provider:
    """Answers at its own pace; now and then it fails, before or after the beginning."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, request: Request) -> Script:
        """A stream, or a whole answer where none was asked for."""
        chance = self._chance
        pause = partial(self._pause, chance.choice(PAUSE_S))
        if chance.random() < 0.05:
            return [json_answer({"error": {"message": "No."}}, 400)]
        tokens = chance.randrange(1, PIECES_MAX)
        usage = {
            "prompt_tokens": 1,
            "completion_tokens": tokens,
            "total_tokens": tokens + 1,
        }
        if not request.json().get("stream"):
            message = {"role": "assistant", "content": "word " * tokens}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return [pause, json_answer({"id": "1", "choices": [choice], "usage": usage})]
        steps: list[Any] = [SSE_HEAD]
        for _ in range(tokens):
            steps += [sse(_piece({"content": "word "})), pause]
        if chance.random() < 0.05:
            return [*steps, RESET]
        last = {"choices": [], "usage": usage}
        return [*steps, sse(_piece({}, "stop"), last, "[DONE]"), LAST_CHUNK]

    async def _pause(self, most_s: float, _line: Line) -> None:
        await asyncio.sleep(self._chance.random() * most_s)


def _piece(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "choices": [choice]}
