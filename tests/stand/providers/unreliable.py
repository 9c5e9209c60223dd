"""A provider of every dialect that answers at random speed and sometimes fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tests.stand.upstream import (
    CUT,
    HALF_CLOSE,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    STALL,
    End,
    Request,
    Script,
    Step,
    UpstreamConnection,
    chunk,
    event,
    json_answer,
    sse,
)

PIECES_MAX = 12
PAUSE_S = (0.03, 0.03, 0.03, 0.5)
"""The longest time between two pieces of an answer."""

Fault = Callable[[Script], Script]
"""Turns a script into a faulty one."""


def refused(status: int) -> Fault:
    """A refusal with this status."""
    return lambda _: [json_answer({"error": {"message": "No."}}, status)]


def broken(end: End, *last: Step) -> Fault:
    """Half of the answer, then these steps and this end."""
    return lambda good: [*good[: len(good) // 2], *last, end]


FEW: Sequence[Fault] = (refused(400), broken(RESET))
MANY: Sequence[Fault] = (
    *(refused(status) for status in (400, 401, 404, 429, 500, 503, 529)),
    *(broken(end) for end in (CUT, RESET, HALF_CLOSE, STALL)),
    broken(CUT, chunk(b"data: {\n\n")),
    lambda _: [json_answer("not what you think")],
)
"""Faults before and after the first token."""


class UnreliableProvider:
    """Answers at random speed; a share of the answers has one of the faults."""

    def __init__(
        self, chance: random.Random, *, faults: Sequence[Fault] = FEW, share: float = 0.1
    ) -> None:
        self._chance = chance
        self._faults = faults
        self._share = share
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._held = 0
        self._arrivals = asyncio.Condition()

    def hold(self) -> None:
        """Makes answers wait, without faults, from now on."""
        self._goes_on.clear()

    def release(self) -> None:
        """Releases the waiting answers."""
        self._goes_on.set()

    async def held(self, number: int) -> None:
        """Returns once this many answers wait."""
        async with self._arrivals:
            await self._arrivals.wait_for(lambda: self._held == number)

    def __call__(self, request: Request) -> Script:
        """A stream, or a whole answer where none was asked for."""
        chance = self._chance
        tokens = chance.randrange(1, PIECES_MAX)
        speak = _SPEECHES[request.path.rpartition("/")[2]]
        pause = partial(self._pause, chance.choice(PAUSE_S))
        good = speak(tokens, pause, streams=bool(request.json().get("stream")))
        if not self._goes_on.is_set():
            return [self._wait, *good]
        return chance.choice(self._faults)(good) if chance.random() < self._share else good

    async def _pause(self, most_s: float, _line: UpstreamConnection) -> None:
        await asyncio.sleep(self._chance.random() * most_s)

    async def _wait(self, _line: UpstreamConnection) -> None:
        self._held += 1
        async with self._arrivals:
            self._arrivals.notify_all()
        await self._goes_on.wait()
        self._held -= 1


def _speak_openai(tokens: int, pause: Step, *, streams: bool) -> Script:
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    if not streams:
        message = {"role": "assistant", "content": "word " * tokens}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return [pause, json_answer({"id": "1", "choices": [choice], "usage": usage})]
    last = {"choices": [], "usage": usage}
    words = [step for _ in range(tokens) for step in (sse(_piece({"content": "word "})), pause)]
    return [SSE_HEAD, *words, sse(_piece({}, "stop"), last, "[DONE]"), LAST_CHUNK]


def _piece(delta: Mapping[str, str], finish_reason: str | None = None) -> Mapping[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "choices": [choice]}


def _speak_anthropic(tokens: int, pause: Step, *, streams: bool) -> Script:
    usage = {"input_tokens": 1, "output_tokens": tokens}
    message = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": []}
    if not streams:
        content = [{"type": "text", "text": "word " * tokens}]
        whole = {**message, "content": content, "stop_reason": "end_turn", "usage": usage}
        return [pause, json_answer(whole)]
    begin = _events(
        {"type": "message_start", "message": {**message, "usage": {**usage, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    )
    text = {"type": "text_delta", "text": "word "}
    word = _events({"type": "content_block_delta", "index": 0, "delta": text})
    end = _events(
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    )
    words = [step for _ in range(tokens) for step in (word, pause)]
    return [SSE_HEAD + begin, *words, end, LAST_CHUNK]


def _events(*data: Mapping[str, Any]) -> bytes:
    return b"".join(chunk(event(each, str(each["type"]))) for each in data)


def _speak_responses(tokens: int, pause: Step, *, streams: bool) -> Script:
    usage = {"input_tokens": 1, "output_tokens": tokens, "total_tokens": tokens + 1}
    content = [{"type": "output_text", "text": "word " * tokens}]
    head = {"id": "1", "object": "response", "status": "completed", "usage": usage}
    whole = {**head, "output": [{"type": "message", "role": "assistant", "content": content}]}
    if not streams:
        return [pause, json_answer(whole)]
    begin = _events({"type": "response.created", "response": {"id": "1", "status": "in_progress"}})
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "word "}
    words = [step for _ in range(tokens) for step in (_events(delta), pause)]
    end = _events({"type": "response.completed", "response": whole})
    return [SSE_HEAD + begin, *words, end, LAST_CHUNK]


_SPEECHES = {
    "messages": _speak_anthropic,
    "completions": _speak_openai,
    "responses": _speak_responses,
}
"""How a provider answers, by the last step of the path."""
