"""A provider that ignores the limit of some answers."""

from __future__ import annotations

import asyncio
import random

from tests.stand.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    Player,
    Request,
    Script,
    UpstreamConnection,
    sse,
)

PROMPT = "Tell me everything"
"""The prompt of such an answer."""

PIECES = 20
PIECE = "word " * 200
PIECE_TOKENS = len(PIECE) // 4
"""Tokens of a piece, as the gateway counts."""
TOKENS = PIECES * PIECE_TOKENS
"""Tokens of an answer."""

PAUSE_S = 0.05
"""The longest time between two pieces."""


class OverlongAnswers:
    """Answers `PROMPT` by streams of `TOKENS` tokens, and other requests as another provider."""

    def __init__(self, others: Player, chance: random.Random) -> None:
        self._others = others
        self._chance = chance

    def __call__(self, request: Request) -> Script:
        """The script of a request."""
        if request.json()["messages"][0]["content"] != PROMPT:
            return self._others(request)
        most_s = self._chance.random() * PAUSE_S

        async def pause(_: UpstreamConnection) -> None:
            await asyncio.sleep(most_s)

        piece = sse({"choices": [{"index": 0, "delta": {"content": PIECE}}]})
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {"prompt_tokens": 1, "completion_tokens": TOKENS, "total_tokens": TOKENS + 1}
        last = sse(end, {"choices": [], "usage": usage}, "[DONE]")
        return [
            SSE_HEAD,
            *(step for _ in range(PIECES) for step in (piece, pause)),
            last,
            LAST_CHUNK,
        ]
