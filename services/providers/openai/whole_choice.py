"""One choice of a whole answer: its message in the domain's form, without events in between.

Equal to the fold of the stream that says the same, also where a server sends odd things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from services.common.known_members import item, member
from services.domain.completion import Choice
from services.domain.conversation import ContentPart, Message, ReasoningPart, TextPart
from services.domain.events import ReasoningDelta, RefusalDelta, TextDelta
from services.providers.finish_reasons import REASONS, checked_reason
from services.providers.openai import wire
from services.providers.openai.choice import (
    ChoiceState,
    PlainDelta,
    StatePacker,
    older_message,
    pieces,
)
from services.providers.openai.extras import Json, gather
from services.providers.openai.logprobs import joined, logprobs_of

_BESIDE_CONTENT = wire.OtherFields(wire.Message, "role", "content", "annotations")
_BESIDE_MESSAGE = wire.OtherFields(
    wire.Choice, "index", "message", "finish_reason", "native_finish_reason"
)


def plain_choice(choice: wire.Choice) -> Choice | None:
    """Return the only choice of an answer, if it is a text and nothing else. None: it has more.

    This is a fast path for most answers; `WholeChoice` gives the same result. Raises UpstreamError
    if the provider says that it failed.
    """
    message, word, native = choice.message, choice.finish_reason, choice.native_finish_reason
    if message is None or not word or choice.index:
        return None
    content = message.content
    if (
        not isinstance(content, str)
        or message.annotations
        or _BESIDE_CONTENT.values(message) != _BESIDE_CONTENT.unset
        or _BESIDE_MESSAGE.values(choice) != _BESIDE_MESSAGE.unset
    ):
        return None
    return Choice(
        message=Message(role="assistant", content=[TextPart(text=content)] if content else []),
        finish_reason=REASONS.get((word, native)) or checked_reason(word, native or ""),
        native_finish_reason=native or word,
    )


class WholeChoice(ChoiceState, eq=False):
    """Choice of a whole answer: one message, or several that share an index."""

    _texts: list[str] = msgspec.field(default_factory=list)
    _reasoning: list[str] = msgspec.field(default_factory=list)
    _refusals: list[str] = msgspec.field(default_factory=list)
    _logprobs: list[Json] = msgspec.field(default_factory=list)

    def add(self, choice: wire.Choice, unknown: Any) -> None:
        """Add a choice with this index."""
        message = choice.message or choice.delta or older_message(choice)
        self.add_members(choice, unknown)
        before = self._size()
        if message is not None:
            name = "delta" if choice.message is None else "message"
            self._add_message(message, member(unknown, name) if unknown else None)
        if choice.logprobs is not None:
            self._add_logprobs(logprobs_of(choice.logprobs, member(unknown, "logprobs")))
        if self.ended and (self._size() > before or (message and message.tool_calls)):
            self.reopen()

    def made(self, pack: StatePacker | None) -> Choice:
        """The choice in the domain's form."""
        content: list[ContentPart] = []
        if self._reasoning:
            content.append(ReasoningPart(text="".join(self._reasoning)))
        if self._texts:
            content.append(TextPart(text="".join(self._texts)))
        tool_calls = self.tool_calls.whole()
        for place, call in enumerate(tool_calls):
            self.reasoning.seal(call.extra_content_json, place, call.id)
        return Choice(
            index=self.index,
            message=Message(
                role="assistant",
                content=content,
                tool_calls=tool_calls,
                reasoning_state=self.reasoning_state(pack),
                reasoning_details_json=self.reasoning.all_shown,
                refusal="".join(self._refusals),
                extra_json=self.extra_json(),
            ),
            finish_reason=self.finish_reason,
            native_finish_reason=self.native_finish_reason,
            logprobs_json=joined(self._logprobs),
            extra_json=self.members_json(),
        )

    def _add_message(self, message: wire.Message, unknown: Any) -> None:
        self._add_texts(message)
        for number, call in enumerate(message.tool_calls or ()):
            self.tool_calls.add_whole(call, item(member(unknown, "tool_calls"), number))
        gather(message, unknown, self.extra)

    def _add_logprobs(self, logprobs: Json) -> None:
        if logprobs:
            self._logprobs.append(logprobs)
            self._texts.append("")  # Log probabilities belong to a text, if to an empty one.

    def _add_texts(self, message: wire.Message) -> None:
        if reasoning := self.reasoning.add(message):
            self._reasoning.append(reasoning)
        self.reasoning.shown(reasoning, message.reasoning_details)
        content = message.content
        if isinstance(content, str):
            if content:
                self._texts.append(content)
        elif content is not None:
            lists: Mapping[PlainDelta, list[str]] = {
                TextDelta: self._texts,
                ReasoningDelta: self._reasoning,
                RefusalDelta: self._refusals,
            }
            for kind, text in pieces(content):
                lists[kind].append(text)
                if kind is ReasoningDelta:
                    self.reasoning.shown(text)
        if message.refusal:
            self._refusals.append(message.refusal)

    def _size(self) -> int:
        return len(self._texts) + len(self._reasoning) + len(self._refusals)
