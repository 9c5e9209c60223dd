"""Random items: whatever a request of Responses has, its texts arrive, have a note, or get a 4xx.

    python -m tests.nightly.response_items [--cases 100000] [--seed N]

The items are those of OpenAI's Responses, in any order, also where they are wrong. Each request
takes a dialect, what the channel passes on, whether it travels over gRPC, and passes as it is.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.surfaces.openai_responses.raw import decode_raw
from services.domain.completion import Completion
from tests.nightly import generated_cases
from tests.stand.planted_requests import tokens
from tests.stand.planted_responses import SEAL
from tests.stand.request_lane import random_lane

Json = dict[str, Any]

IDS = ("call_1", "call_2", "", "é")
NAMES = ("f", "g", "bad name", "")
SEALS = (
    *(None, "", "eA==", SEAL, "pomogator.state.zzz", "pomogator.state."),
    *("pomogator.details.W10=", "pomogator.details.%%", "pomogator.details.WzFd"),
)
TOOLS: Sequence[Json] = (
    {"type": "function", "name": "f", "parameters": {"type": "object"}},
    {"type": "function", "name": "g", "strict": True},
    {"type": "custom", "name": "h", "format": {"type": "text"}},
    {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
    {"type": "namespace", "name": "", "description": "d", "tools": []},
    {"type": "web_search"},
    {"type": "mcp", "server_label": "a", "server_url": "https://a.example"},
)
FIELDS: Mapping[str, Sequence[Any]] = {
    "instructions": ("", "i", [{"role": "user", "content": "i"}]),
    "tool_choice": (
        *("auto", "required", "none", "odd", {"type": "function", "name": "f"}),
        *({"type": "web_search"}, {"type": "custom", "name": "h"}, {"type": "function"}),
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
    ),
    "reasoning": ({"effort": "low"}, {"effort": "odd", "summary": "auto"}, {"summary": "odd"}),
    "text": (
        {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
        {"format": {"type": "odd"}, "verbosity": "high"},
        {"format": {"type": "json_schema"}},
    ),
    "store": (True, False),
    "top_logprobs": (0, 2),
    "stream": (True, False),
    "max_output_tokens": (1, 9000),
    "truncation": ("auto", "disabled"),
    "include": (["reasoning.encrypted_content"], ["odd"]),
}


class Chance(random.Random):
    """A source of requests."""

    def request(self) -> Json:
        """A request of any kind."""
        found: Json = {"model": "m"}
        found["input"] = [self.item() for _ in range(self.randint(1, 6))]
        if self.random() < 0.6:
            found["tools"] = self.sample(TOOLS, self.randint(0, 3))
        for name, values in FIELDS.items():
            if self.random() < 0.2:
                found[name] = self.choice(values)
        return found

    def item(self) -> Json:
        """An item of any type."""
        kind = self.choice(list(ITEMS))
        found = ITEMS[kind](self)
        if kind != "easy":
            found["type"] = kind
        if self.random() < 0.5:
            found |= {"id": "i", "status": "completed"}
        return found

    def token(self) -> str:
        """A text that is nowhere else."""
        return f"t{self.getrandbits(64):x}"

    def content(self) -> Any:
        """The content of an item."""
        if self.random() < 0.4:
            return self.choice((self.token(), ""))
        return [self.part() for _ in range(self.randint(0, 3))]

    def part(self) -> Json:
        """A part of any type."""
        kind = self.choice(list(PARTS))
        return {"type": kind, **PARTS[kind](self)}


PARTS: Mapping[str, Callable[[Chance], Json]] = {
    "input_text": lambda chance: {"text": chance.token()},
    "output_text": lambda chance: {"text": chance.token(), "annotations": [], "logprobs": []},
    "refusal": lambda chance: {"refusal": chance.token()},
    "input_image": lambda chance: {
        "image_url": chance.choice(("https://a.example/a", "data:image/png;base64,AAAA", None)),
        "file_id": chance.choice((None, "file-1")),
        "detail": chance.choice(("auto", "low", "odd")),
    },
    "input_file": lambda chance: {
        chance.choice(("file_data", "file_url", "file_id")): "https://a.example/a.pdf"
    },
    "input_audio": lambda _: {"input_audio": {"data": "AAAA", "format": "wav"}},
    "odd": lambda chance: {"x": chance.token()},
}
"""Members of parts by their type."""

ITEMS: Mapping[str, Callable[[Chance], Json]] = {
    "easy": lambda chance: {
        "role": chance.choice(("user", "assistant", "system")),
        "content": chance.token(),
    },
    "message": lambda chance: {
        "role": chance.choice(("user", "assistant", "system", "developer", "odd")),
        "content": chance.content(),
    },
    "reasoning": lambda chance: {
        "summary": [{"type": "summary_text", "text": "s"}] * chance.randint(0, 2),
        "content": chance.choice((None, [], [{"type": "reasoning_text", "text": "r"}])),
        "encrypted_content": chance.choice(SEALS),
    },
    "function_call": lambda chance: {
        "call_id": chance.choice(IDS),
        "name": chance.choice(NAMES),
        "arguments": chance.choice(("{}", '{"a":1}', "", "odd")),
        "namespace": chance.choice((None, "n", "")),
    },
    "function_call_output": lambda chance: {
        "call_id": chance.choice(IDS),
        "output": chance.content(),
    },
    "custom_tool_call": lambda chance: {
        "call_id": chance.choice(IDS),
        "name": chance.choice(NAMES),
        "input": chance.token(),
    },
    "custom_tool_call_output": lambda chance: {
        "call_id": chance.choice(IDS),
        "output": chance.content(),
    },
    "item_reference": lambda _: {"id": "rs_1"},
    "compaction": lambda chance: {"encrypted_content": chance.token()},
    "compaction_trigger": lambda _: {},
    "web_search_call": lambda chance: {"action": {"query": chance.token()}},
    "odd": lambda chance: {"x": chance.token()},
}
"""Members of items by their type; `easy` has none."""


ANSWER = Completion(completion_id="chatcmpl-1", model="m", create_time_s=1)
"""An answer, which repeats what the request has."""


def check_cases(cases: int, seed: int) -> Mapping[int, int]:
    """Check as many requests. Returns the number of each status."""
    chance = Chance(seed)
    became: Counter[int] = Counter()
    for _ in range(cases):
        request, lane = chance.request(), random_lane(chance)
        found = lane.send(request, api="responses", raw=chance.random() < 0.5)
        assert found.status == 200 or 400 <= found.status < 500, (request, lane)
        if found.status == 200 and not found.notes:
            said = {each for each in tokens(request["input"]) if each[:1] == "t" and len(each) > 9}
            body = found.body.decode()
            assert all(each in body for each in said), f"lost in silence: {request} {lane} {body}"
        if found.status == 200:
            decoded = decode_raw(json.dumps(request).encode())
            assert json.loads(decoded.render(ANSWER, {}))["status"] == "completed", request
        became[found.status] += 1
    return became


if __name__ == "__main__":
    generated_cases.run(check_cases, __doc__)
