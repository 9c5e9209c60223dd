"""Answers of a fake provider, independent of the dialect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning in plain text, with the provider's signature."""

    pieces: tuple[str, ...]
    signature: str

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Redacted:
    """Reasoning that only the provider can read."""

    data: str


@dataclass(frozen=True, slots=True)
class Text:
    """A part of the answer's text."""

    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Call:
    """A call to a tool. Without pieces it has no arguments."""

    id: str
    name: str
    pieces: tuple[str, ...]

    @property
    def arguments(self) -> str:
        """All of them, as the model wrote them."""
        return "".join(self.pieces)


Part = Thought | Redacted | Text | Call
Stop = Literal["stop", "length", "tool_calls", "content_filter"]
Break = Literal["error", "cut", "stall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer."""

    parts: Sequence[Part] = ()
    stop: Stop = "stop"
    refusal: str = ""
    """The model's refusal, if it refuses."""
    breaks_off: Break | None = None
    """How it is truncated: by an error, a closed connection, or silence."""
    prompt_tokens: int = 21
    completion_tokens: int = 13
    thinking_tokens: int = 0

    @property
    def text(self) -> str:
        """The answer's text."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def reasoning(self) -> str:
        """The readable reasoning."""
        return "".join(part.text for part in self.parts if isinstance(part, Thought))

    @property
    def calls(self) -> Sequence[Call]:
        """The calls of tools."""
        return [part for part in self.parts if isinstance(part, Call)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An answer with another status than 200."""

    status: int
    kind: str
    """The provider's name of the error."""
    message: str
    retry_after_s: int | None = None


def text(*pieces: str) -> Text:
    """Text in these pieces."""
    return Text(pieces)


def thought(*pieces: str, signature: str = "c2lnbmVk") -> Thought:
    """Reasoning in these pieces."""
    return Thought(pieces, signature)


def call(call_id: str, name: str, *pieces: str) -> Call:
    """A call with its arguments in these pieces."""
    return Call(call_id, name, pieces)


GREETING = Answer(parts=[text("При", "вет", "! 🌍")])
ASKS = Answer(
    parts=[
        thought("I need", " both."),
        text("Let me ", "see."),
        call("toolu_1", "weather", '{"ci', 'ty": "Paris"}'),
        call("toolu_2", "clock"),
    ],
    stop="tool_calls",
)
"""Reasoning, text and two calls of the stand's tools."""
ANSWERS = Answer(parts=[thought("All clear.", signature="Zg=="), text("18 °C, ", "noon.")])
"""The answer to the results of both."""
