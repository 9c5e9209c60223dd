"""Answers of OpenAI's Responses with random members in all of their objects."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from tests.nightly.planted_answers import TEXTS, Json, Path, PlantedAnswer, cut, members, promised


class _Responses:
    """Maker of one answer."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._promised: list[tuple[Path, Any]] = []
        self._events: list[Json] = []
        self._output: list[Json] = []
        self._parts = self._calls = self._annotations = 0
        self._has_members = False

    def made(self) -> PlantedAnswer:
        """Return the answer."""
        chance = self._chance
        makers = (self._message, self._message, self._call, self._reasoning, self._other)
        for _ in range(chance.randrange(6)):
            chance.choice(makers)()
        beside, usage = members(chance, "answer"), members(chance, "usage")
        self._promised += promised((), beside) + promised(("usage",), usage)
        counts = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}
        head = {"id": "resp_1", "status": "completed", "usage": counts | usage, **beside}
        body = {**head, "output": self._output}
        last = body if chance.random() < 0.7 else {**head, "output": []}
        events = [
            {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
            *self._events,
            {"type": "response.completed", "response": last},
        ]
        return PlantedAnswer(body, events, self._promised)

    def _add(self, item: Json, begun: Json, deltas: Sequence[Json]) -> None:
        index = len(self._output)
        self._output.append(item)
        place = {"output_index": index}
        begin = [{"type": "response.output_item.added", **place, "item": begun}]
        if deltas and self._chance.random() < 0.2:
            begin = []  # Some servers leave out the beginning.
        shown = [] if self._chance.random() < 0.2 and begin else deltas
        self._events += [
            *begin,
            *(each | place for each in shown),
            {"type": "response.output_item.done", **place, "item": item},
        ]

    def _message(self) -> None:
        text = self._chance.choice(TEXTS)
        own = {} if self._has_members else members(self._chance, "message")
        self._has_members = True
        part: Json = {"type": "output_text", "text": text, "annotations": []}
        if self._chance.random() < 0.4:
            cited = {"type": "file_citation", **members(self._chance, "citation")}
            part["annotations"] = [cited]
            path = ("choices", 0, "message", "annotations", self._annotations)
            self._promised.append((path, cited))
            self._annotations += 1
        self._promised += promised(("choices", 0, "message"), own)
        item = {"type": "message", "id": f"msg_{len(self._output)}", "content": [part], **own}
        kind = "response.output_text.delta"
        pieces = cut(self._chance, text)
        deltas = [{"type": kind, "content_index": 0, "delta": piece} for piece in pieces]
        self._add(item, {**item, "content": []}, deltas)

    def _call(self) -> None:
        own = members(self._chance, "call")
        arguments = json.dumps({"a": self._chance.choice(TEXTS)})
        kind = "response.function_call_arguments.delta"
        pieces = cut(self._chance, arguments)
        deltas = [{"type": kind, "delta": piece} for piece in pieces]
        call = {"type": "function_call", "call_id": f"c{self._calls}", "name": "f"}
        self._add({**call, "arguments": arguments, **own}, {**call, "arguments": "", **own}, deltas)
        self._promised += promised(("choices", 0, "message", "tool_calls", self._calls), own)
        self._calls += 1

    def _reasoning(self) -> None:
        own = _without_null(members(self._chance, "thought"))
        text = self._chance.choice(TEXTS)
        summary = [{"type": "summary_text", "text": text}]
        item = {"type": "reasoning", "id": f"rs_{len(self._output)}", "summary": summary, **own}
        kind = "response.reasoning_summary_text.delta"
        pieces = cut(self._chance, text)
        deltas = [{"type": kind, "summary_index": 0, "delta": piece} for piece in pieces]
        self._add(item, {**item, "summary": []}, deltas)
        if own:
            self._promise({"type": "reasoning", **own})

    def _other(self) -> None:
        own = _without_null(members(self._chance, "item"))
        item = {"type": "web_search_call", "id": f"ws_{len(self._output)}", **own}
        self._add(item, {**item, "status": "in_progress"}, [])
        self._promise({"type": "openai_responses_item", "item": item})

    def _promise(self, part: Json) -> None:
        self._promised.append((("choices", 0, "message", "content_parts", self._parts), part))
        self._parts += 1


def _without_null(planted: Json) -> Json:
    return {name: each for name, each in planted.items() if each is not None}


def responses_answer(chance: random.Random) -> PlantedAnswer:
    """Return an answer in the form of OpenAI's Responses."""
    return _Responses(chance).made()
