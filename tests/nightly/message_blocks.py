"""Random messages: whatever blocks a request has, it is sent to its provider or refused with 4xx.

    python -m tests.nightly.message_blocks [--cases 100000] [--seed N]

The blocks are those of Anthropic's Messages, in any order and at any role, also where they are
wrong. Each request takes a dialect, what the channel passes on, and whether it travels over gRPC.
"""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.nightly import generated_cases
from tests.stand.request_lane import random_lane

Json = dict[str, Any]

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()
MARK: Json = {"type": "ephemeral"}
TEXTS = ("", "a", " ", "Tides", "\n", "наш")
IDS = ("toolu_1", "toolu_2", "", "é")
SEALS = (
    *("eA==", "pomogator.state.zzz", "pomogator.state.", "pomogator.details.W10="),
    *("pomogator.details.%%", "pomogator.details.WzFd", "pomogator.details.e30="),
)
SOURCES: Sequence[Json] = (
    {"type": "base64", "media_type": "image/png", "data": PNG},
    {"type": "base64", "media_type": "application/pdf", "data": PNG},
    {"type": "url", "url": "https://a.example/a"},
    {"type": "text", "data": "a"},
    {"type": "content", "content": [{"type": "text", "text": "a"}]},
    {"type": "file", "file_id": "f"},
    {"type": "odd"},
)
TOOLS: Sequence[Json] = (
    {"name": "f", "input_schema": {"type": "object"}},
    {"name": "g"},
    {"type": "custom", "name": "h", "input_schema": {}, "input_examples": [{}]},
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "bash_20250124", "name": "bash"},
)
FIELDS: Mapping[str, Sequence[Any]] = {
    "system": ("", "Be brief.", [{"type": "text", "text": "s", "cache_control": MARK}]),
    "tool_choice": [{"type": kind, "name": "f"} for kind in ("auto", "any", "tool", "none")],
    "thinking": (
        {"type": "enabled", "budget_tokens": 2000},
        {"type": "adaptive", "display": "omitted"},
        {"type": "disabled"},
    ),
    "output_config": (
        {"effort": "low"},
        {"effort": "odd", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    ),
}


class Chance(random.Random):
    """A source of requests."""

    def request(self) -> Json:
        """A request of any kind."""
        found: Json = {"model": "m", "max_tokens": self.choice((1, 9000))}
        found["messages"] = [self.message() for _ in range(self.randint(1, 6))]
        if self.random() < 0.6:
            found["tools"] = self.sample(TOOLS, self.randint(0, 3))
        for name, values in FIELDS.items():
            if self.random() < 0.3:
                found[name] = self.choice(values)
        return found

    def message(self) -> Json:
        """A message of any role."""
        role = self.choice(("user", "assistant", "user", "assistant", "system"))
        if self.random() < 0.3:
            return {"role": role, "content": self.choice(TEXTS)}
        return {"role": role, "content": [self.block() for _ in range(self.randint(0, 5))]}

    def block(self, depth: int = 1) -> Json:
        """A block of any type."""
        kind = self.choice(list(BLOCKS))
        found = {"type": kind, **BLOCKS[kind](self, depth)}
        if self.random() < 0.1:
            found["cache_control"] = MARK
        return found

    def result(self, depth: int) -> Json:
        """The members of a tool's result."""
        blocks = [self.block(0) for _ in range(self.randint(0, 3))] if depth else "a"
        failed = self.choice((None, True, False))
        return {"tool_use_id": self.choice(IDS), "content": blocks, "is_error": failed}


BLOCKS: Mapping[str, Callable[[Chance, int], Json]] = {
    "text": lambda chance, _: {"text": chance.choice(TEXTS)},
    "image": lambda chance, _: {"source": chance.choice(SOURCES)},
    "document": lambda chance, _: {
        "source": chance.choice(SOURCES),
        "title": chance.choice((None, "t")),
        "citations": {"enabled": chance.random() < 0.5},
    },
    "thinking": lambda chance, _: {
        "thinking": chance.choice(TEXTS),
        "signature": chance.choice(("c2ln", "", None)),
    },
    "redacted_thinking": lambda chance, _: {"data": chance.choice(SEALS)},
    "tool_use": lambda chance, _: {
        "id": chance.choice(IDS),
        "name": chance.choice(("f", "bad name", "")),
        "input": chance.choice(({}, {"a": 1}, [], None, "x")),
    },
    "tool_result": lambda chance, depth: chance.result(depth),
    "server_tool_use": lambda _, __: {"id": "s", "name": "web_search", "input": {}},
    "web_search_tool_result": lambda _, __: {"tool_use_id": "s", "content": []},
    "search_result": lambda _, __: {"source": "s", "title": "t", "content": []},
    "new": lambda _, __: {"x": 1},
}
"""Members of blocks by their type."""


def check_cases(cases: int, seed: int) -> Mapping[int, int]:
    """Check as many requests. Returns the number of each status."""
    chance = Chance(seed)
    became: Counter[int] = Counter()
    for _ in range(cases):
        request, lane = chance.request(), random_lane(chance)
        status = lane.send(request, api="messages", raw=chance.random() < 0.5).status
        assert status == 200 or 400 <= status < 500, (request, lane)
        became[status] += 1
    return became


if __name__ == "__main__":
    generated_cases.run(check_cases, __doc__)
