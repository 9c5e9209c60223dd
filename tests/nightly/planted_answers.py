"""Answers of providers with random members in all of their objects, whole and as a stream."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]
Path = tuple[str | int, ...]

TEXTS = ("", "a", "Grüße", "🙂", 'quote " and \\', "line\nbreak", "\u2028")
NAMES = ("x", "mark", "x y", "ключ", 'a"b', "line\nbreak", "verdict_v2")


class PlantedAnswer(NamedTuple):
    """One answer."""

    body: Json
    """The answer in one document."""
    chunks: Sequence[Json]
    """Events of a stream that says the same."""
    promised: Sequence[tuple[Path, Any]]
    """Where a caller finds each member in a whole answer, and its value."""


def value(chance: random.Random, depth: int = 0) -> Any:
    """Return any JSON value but null."""
    kind = chance.randrange(7 if depth < 3 else 5)
    if kind < 2:
        return chance.choice(TEXTS)
    if kind < 5:
        return (chance.random() < 0.5, chance.randrange(-(2**53), 2**53), chance.random())[kind - 2]
    size = chance.randrange(3)
    if kind == 5:
        return [value(chance, depth + 1) for _ in range(size)]
    return {chance.choice(NAMES): value(chance, depth + 1) for _ in range(size)}


def members(chance: random.Random, place: str) -> Json:
    """Return up to two members whose names no field has. One may be null."""
    found: Json = {}
    for _ in range(chance.randrange(3)):
        found[f"{place}_{chance.choice(NAMES)}"] = None if chance.random() < 0.1 else value(chance)
    return found


def promised(path: Path, planted: Json) -> list[tuple[Path, Any]]:
    """Members at a place, as a caller finds them: null is nothing."""
    return [((*path, name), each) for name, each in planted.items() if each is not None]


def cut(chance: random.Random, text: str) -> list[str]:
    """Return the text in pieces, at least one."""
    at = chance.randrange(len(text) + 1)
    return [text[:at], text[at:]] if chance.random() < 0.5 else [text]


class _OpenAi:
    """Maker of one answer in OpenAI's form."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._promised: list[tuple[Path, Any]] = []
        self._beside = self._plant("answer", ())
        self._usage: Json = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        self._usage |= self._plant("usage", ("usage",))
        for name in ("prompt_tokens_details", "completion_tokens_details"):
            if chance.random() < 0.5:
                self._usage[name] = self._plant(name, ("usage", name))

    def made(self) -> PlantedAnswer:
        """Return the answer, of one or two choices."""
        count = self._chance.choice((1, 1, 2))
        parts = [self._choice(index) for index in range(count)]
        chunks = [chunk for _, pieces in parts for chunk in pieces]
        for name, each in self._beside.items():  # Some servers repeat them.
            for place in {self._chance.randrange(len(chunks)) for _ in range(2)}:
                chunks[place][name] = each
        chunks[-1]["usage"] = self._usage
        body = {"choices": [choice for choice, _ in parts], "usage": self._usage} | self._beside
        return PlantedAnswer(body, chunks, self._promised)

    def _plant(self, place: str, path: Path) -> Json:
        planted = members(self._chance, place)
        self._promised += promised(path, planted)
        return planted

    def _choice(self, index: int) -> tuple[Json, list[Json]]:
        path: Path = ("choices", index)
        own = self._plant("choice", path)
        message, deltas = self._message((*path, "message"))
        choices: list[Json] = [{"index": index, "delta": delta} for delta in deltas]
        self._spread(own, choices)
        end = {"finish_reason": "stop"}
        choices.append({"index": index, "delta": {}, **end})
        whole = {"index": index, "message": message, **own, **end}
        if self._chance.random() < 0.3:
            whole["logprobs"] = choices[0]["logprobs"] = self._logprobs((*path, "logprobs"))
        return whole, [{"choices": [choice]} for choice in choices]

    def _logprobs(self, path: Path) -> Json:
        tokens = [{"token": "a", "logprob": -0.5}]
        return {"content": tokens, "refusal": None, **self._plant("logprobs", path)}

    def _message(self, path: Path) -> tuple[Json, list[Json]]:
        chance = self._chance
        message: Json = {"role": "assistant", "content": None}
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        if reasoning := chance.choice(TEXTS):
            message["reasoning_content"] = reasoning
            deltas += [{"reasoning_content": piece} for piece in cut(chance, reasoning)]
        if text := chance.choice(TEXTS):
            message["content"] = text
            deltas += [{"content": piece} for piece in cut(chance, text)]
        for number in range(chance.choice((0, 0, 1, 2))):
            call, pieces = self._tool_call(number, (*path, "tool_calls", number))
            message.setdefault("tool_calls", []).append(call)
            deltas += [{"tool_calls": [piece]} for piece in pieces]
        if chance.random() < 0.2:
            part = {"type": "other", "known": 1, **members(chance, "part")}
            message["content"] = [{"type": "text", "text": text}, part]
            deltas.append({"content": [part]})
            said = {name: each for name, each in part.items() if each is not None}
            self._promised.append(((*path, "content_parts", 0), said))
        own = self._plant("message", path)
        self._spread(own, deltas)
        return message | own, deltas

    def _tool_call(self, number: int, path: Path) -> tuple[Json, list[Json]]:
        arguments = json.dumps({"a": self._chance.choice(TEXTS)})
        own, inner = self._plant("call", path), self._plant("function", (*path, "function"))
        function = {"name": "f", "arguments": arguments, **inner}
        call = {"id": f"c{number}", "type": "function", "function": function, **own}
        first, *others = cut(self._chance, arguments)
        pieces: list[Json] = [
            {"index": number, "id": f"c{number}", "function": {"name": "f", "arguments": first}},
            *({"index": number, "function": {"arguments": piece}} for piece in others),
        ]
        self._spread(own, pieces)
        self._spread(inner, [piece["function"] for piece in pieces])
        return call, pieces

    def _spread(self, planted: Json, objects: Sequence[Json]) -> None:
        """Put each member into one of the objects."""
        for name, each in planted.items():
            self._chance.choice(objects)[name] = each


def openai_answer(chance: random.Random) -> PlantedAnswer:
    """Return an answer in OpenAI's form."""
    return _OpenAi(chance).made()


def mutated(chance: random.Random, tree: Any) -> Any:
    """Return a copy of an answer in which one value has been replaced by any other."""
    tree = json.loads(json.dumps(tree))
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return tree
        key = chance.choice(keys)
        inner = node[key]
        if not isinstance(inner, dict | list) or chance.random() < 0.3:
            node[key] = chance.choice((None, value(chance)))
            return tree
        node = inner


class _Anthropic:
    """Maker of one answer in Anthropic's form."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._promised: list[tuple[Path, Any]] = []
        self._events: list[Json] = []
        self._content: list[Json] = []
        self._annotations = self._parts = self._calls = 0

    def made(self) -> PlantedAnswer:
        """Return the answer."""
        chance = self._chance
        for _ in range(chance.randrange(5)):
            chance.choice((self._text, self._text, self._tool_use, self._other_block))()
        beside, usage = members(chance, "answer"), members(chance, "usage")
        self._promised += promised((), beside) + promised(("usage",), usage)
        counts = {"input_tokens": 9, "output_tokens": 5}
        early = {name: beside[name] for name in beside if chance.random() < 0.5}
        late = {name: value for name, value in beside.items() if name not in early}
        start = {"type": "message", "id": "m", "usage": counts | usage, **early}
        end = {"stop_reason": "end_turn", **late}
        events = [
            {"type": "message_start", "message": start},
            *self._events,
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ]
        body = start | {"content": self._content} | end
        return PlantedAnswer(body, events, self._promised)

    def _add(self, block: Json, begun: Json, deltas: Sequence[Json]) -> None:
        index = len(self._content)
        self._content.append(block)
        self._events += [
            {"type": "content_block_start", "index": index, "content_block": begun},
            *({"type": "content_block_delta", "index": index, "delta": each} for each in deltas),
            {"type": "content_block_stop", "index": index},
        ]

    def _promise(self, name: str, number: int, value: Any) -> None:
        self._promised.append((("choices", 0, "message", name, number), value))

    def _text(self) -> None:
        text = self._chance.choice(TEXTS)
        block: Json = {"type": "text", "text": text}
        pieces = cut(self._chance, text)
        deltas: list[Json] = [{"type": "text_delta", "text": piece} for piece in pieces]
        if self._chance.random() < 0.4:
            citation = {"type": "page_location", **members(self._chance, "citation")}
            block["citations"] = [citation]
            deltas.append({"type": "citations_delta", "citation": citation})
            self._promise("annotations", self._annotations, citation)
            self._annotations += 1
        self._add(block, {"type": "text", "text": ""}, deltas)

    def _tool_use(self) -> None:
        own = members(self._chance, "call")
        arguments = json.dumps({"a": self._chance.choice(TEXTS)})
        pieces = cut(self._chance, arguments)
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        begun: Json = {"type": "tool_use", "id": f"t{self._calls}", "name": "f", "input": {}, **own}
        self._add(begun | {"input": json.loads(arguments)}, begun, deltas)
        path: Path = ("choices", 0, "message", "tool_calls", self._calls)
        self._promised += promised(path, own)
        self._calls += 1

    def _other_block(self) -> None:
        question = {"q": self._chance.choice(TEXTS)}
        own = {name: each for name, each in members(self._chance, "block").items() if each}
        begun: Json = {"type": "server_tool_use", "id": "s", "input": {}, **own}
        pieces = cut(self._chance, json.dumps(question))
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        block = begun | {"input": question}
        self._add(block, begun, deltas)
        self._promise("content_parts", self._parts, block)
        self._parts += 1


def anthropic_answer(chance: random.Random) -> PlantedAnswer:
    """Return an answer in Anthropic's form."""
    return _Anthropic(chance).made()
