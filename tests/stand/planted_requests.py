"""Valid requests with all kinds of objects, and unknown members planted in them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from tests.stand.planted_messages import MESSAGES
from tests.stand.planted_responses import RESPONSES
from tests.stand.request_lane import Api

Json: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str | int, ...]

MARK: Json = {"type": "ephemeral"}
SCHEMA: Json = {"type": "object", "properties": {"a": {"type": "integer"}}}
FUNCTION: Json = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
TOOL: Json = {"type": "function", "function": FUNCTION, "cache_control": MARK}
CALL: Json = {
    "id": "call_1",
    "type": "function",
    "index": 0,
    "function": {"name": "f", "arguments": '{"a":1}'},
    "extra_content": {"google": {"thought_signature": "c2lnbmVk"}},
    "cache_control": MARK,
}
USER: Json = {"role": "user", "content": "Hi", "cache_control": MARK}
RESULT: Json = {"role": "tool", "tool_call_id": "call_1", "content": "1", "cache_control": MARK}
DETAILS: Sequence[Json] = [
    {
        "type": "reasoning.text",
        "text": "t",
        "signature": "c2ln",
        "format": "anthropic-claude-v1",
        "index": 0,
    },
    {"type": "reasoning.encrypted", "data": "x", "format": "anthropic-claude-v1", "index": 1},
]


def _request(*messages: Json, **fields: Any) -> Json:
    return {"model": "m", "messages": list(messages), **fields}


REQUESTS: Mapping[str, Json] = {
    "parts": _request(
        {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": MARK}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "a"},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://a.example/a.png", "detail": "low"},
                },
                {"type": "image_url", "image_url": "https://a.example/a.png"},
                {
                    "type": "file",
                    "file": {"file_data": "https://a.example/a.pdf", "filename": "a.pdf"},
                },
            ],
        },
        stream_options={"include_usage": True},
        stream=True,
        usage={"include": True},
        metadata={"a": "b"},
        logit_bias={"5": 1},
    ),
    "sound": _request(
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
        },
        {"role": "assistant", "audio": {"id": "audio_1"}},
        USER,
    ),
    "tools": _request(
        USER,
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}],
            "tool_calls": [CALL],
        },
        RESULT,
        tools=[TOOL, {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
    ),
    "functions": _request(
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        functions=[FUNCTION],
        function_call={"name": "f"},
    ),
    "allowed": _request(
        USER,
        tools=[TOOL],
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        },
    ),
    "schema": _request(
        USER,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": SCHEMA, "strict": True},
        },
        thinking={"type": "enabled", "budget_tokens": 2000},
        max_tokens=9000,
    ),
    "object": _request(
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        USER,
        response_format={"type": "json_object"},
        reasoning={"effort": "low", "exclude": False},
    ),
    "details": _request(
        USER,
        {
            "role": "assistant",
            "content": "a",
            "reasoning_details": DETAILS,
            "tool_calls": [CALL],
            "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.example"}}],
        },
        RESULT,
        tools=[TOOL],
    ),
    "others": _request(
        {
            "role": "user",
            "content": [
                {"type": "document", "source": {"type": "text", "data": "a"}},
            ],
        },
        tools=[
            {"type": "web_search_20250305", "name": "web_search"},
            {"type": "openrouter:web_search", "parameters": {"max_results": 1}},
        ],
    ),
    "video": _request(
        {
            "role": "user",
            "content": [{"type": "video_url", "video_url": {"url": "https://a.example/v"}}],
        },
        response_format={"type": "grammar", "grammar": "root ::= x"},
        reasoning_effort="default",
    ),
}
"""Requests by the kinds of objects in them."""

ALL = {**REQUESTS, **MESSAGES, **RESPONSES}


def api_of(request: str) -> Api:
    """Return the API of a request of `ALL`."""
    if request in RESPONSES:
        return "responses"
    return "messages" if request in MESSAGES else "chat"


FREE = frozenset({"parameters", "format", "schema", "input_schema", "input"})
"""Members whose value is any JSON, and reaches the provider as it is."""

NAMES: Sequence[str] = (
    *("prefix", "partial", "uuid", "min_pixels", "schema", "cache_control", "extra_content"),
    *("annotations", "audio", "function_call", "type", "name", "content", "role", "text", "id"),
    *("model", "metadata", "store", "provider", "user", "strict", "json", "detail", "planted"),
    *("planted-by-hand", "Planted", "наш", "$x", "a b", "__proto__", "x" * 80, "thinking"),
)
"""Names that are known here or there, and names that are known nowhere."""


class Plant(NamedTuple):
    """A member to plant, and where."""

    request: str
    """One of `ALL`."""
    path: Path
    """The object that gets the member."""
    name: str
    value: Any

    def body(self) -> Json:
        """Return the request with the member."""
        body = copy.deepcopy(ALL[self.request])
        at: Any = body
        for step in self.path:
            at = at[step]
        at[self.name] = self.value
        return body

    @property
    def way(self) -> Path:
        """The way to the member from the request."""
        return (*self.path, self.name)

    @property
    def replaces(self) -> bool:
        """Whether the object has a member of this name already, which is then another request."""
        at: Any = ALL[self.request]
        for step in self.path:
            at = at[step]
        return self.name in at


def objects(value: object, free: Container[str] = FREE, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every object with members of its own, the request first.

    Values of the members `free` are any JSON.
    """
    if isinstance(value, Mapping):
        yield path
        for name, inner in value.items():
            if name not in free or isinstance(inner, str):
                yield from objects(inner, free, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from objects(inner, free, (*path, index))


PLACES: Sequence[tuple[str, Path]] = [
    (name, path) for name, request in REQUESTS.items() for path in objects(request)
]
"""Every object of every request for a chat completion."""

ALL_PLACES = [(name, path) for name, request in ALL.items() for path in objects(request)]
"""Those of all APIs."""


def random_plant(chance: random.Random) -> Plant:
    """Return a member with a value that is nowhere else, in an object of a request."""
    while True:
        request, path = chance.choice(ALL_PLACES)
        name = chance.choice(NAMES)
        if chance.random() < 0.2:
            name = "".join(chance.choices("abcXYZ_-0 é", k=chance.randint(1, 12)))
        plant = Plant(request, path, name, random_value(chance))
        if not plant.replaces:
            return plant


def random_value(chance: random.Random, depth: int = 2) -> Any:
    """Return a text, a list or an object, whose texts are nowhere else."""
    token = f"t{chance.getrandbits(64):x}"
    kind = chance.randrange(8 if depth else 4)
    if kind < 4:
        return token
    if kind == 4:
        return [token, random_value(chance, depth - 1)]
    inner = chance.choice(("a", "type", "google", "url", "id", "name", token))
    return {inner: random_value(chance, depth - 1), "token": token}


def tokens(value: Any) -> Iterator[str]:
    """Yield the texts of a planted value, each of which is nowhere else."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tokens(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from tokens(inner)


def texts(body: object) -> frozenset[str]:
    """Return all texts in JSON, those in JSON that is a text included, such as arguments."""
    return frozenset(tokens(json.loads(body) if isinstance(body, str | bytes) else body))


def is_about(param: str, way: Path) -> bool:
    """Whether a note is about an object on the way to a member, or about what is in the member.

    A call in the form that preceded tools is noted as the first tool call.
    """
    if param == "messages":  # Said once for all of them.
        return way[-1] in {"name", "reasoning_state"} or "reasoning_details" in way
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in way)
    path, told = "".join(steps)[1:], param.replace("tool_calls[0]", "function_call")
    return param in way or path.startswith((param, told)) or told.startswith(f"{path}.")
