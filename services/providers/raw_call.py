"""Raw call: a raw request on its way, translated where that is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from services.domain.conversation import Message, TextPart
from services.domain.events import Event, RawForm
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Target
from services.providers.raw_lane import RawFacts, RawLane


class RawCall(msgspec.Struct, kw_only=True):
    """A raw request, and the lanes that it may take."""

    facts: RawFacts
    """Facts that are read of it."""
    lanes: Mapping[str, RawLane]
    """Lanes of its API, by the dialects whose channels speak it."""
    translate: Callable[[], ChatCompletionSpec]
    """Decodes the whole request. Raises Failure."""
    sends_provider_tools: bool
    """Whether the caller may use what a provider bills besides tokens."""
    _translated: ChatCompletionSpec | None = None
    _last: Target | None = None
    _passes: bool = False

    @property
    def size(self) -> int:
        """Bytes of the request."""
        return len(self.facts.request.body)

    def passes_to(self, target: Target) -> bool:
        """Return whether the request passes to a target as it is."""
        if target is not self._last:
            lane = self.lanes.get(target.channel.dialect)
            able = target
            if target.sends_provider_tools and not self.sends_provider_tools:
                able = replace(target, sends_provider_tools=False)
            self._passes = lane is not None and lane.takes(self.facts, able)
            self._last = target
        return self._passes

    def translated(self) -> ChatCompletionSpec:
        """Return the whole request, decoded when it is needed for the first time. Raises Failure.

        It must not use the event loop.
        """
        if self._translated is None:
            self._translated = self.translate()
        return self._translated

    def beginning(self) -> ChatCompletionSpec:
        """Return the beginning of the conversation as texts, by which its calls are known."""
        return next(iter(self.lanes.values())).beginning(self.facts)

    def translated_answer(self, form: RawForm, data: bytes) -> list[Event]:
        """Return the events of a complete answer that was passed on, but for its start."""
        return next(iter(self.lanes.values())).translated(form, data)

    def countable(self) -> ChatCompletionSpec:
        """Return the whole request; one with its JSON as a text where it cannot be decoded."""
        try:
            return self.translated()
        except Failure:
            text = self.facts.request.body.decode(errors="replace")
            message = Message(role="user", content=[TextPart(text=text)])
            return msgspec.structs.replace(self.facts.spec, messages=[message])
