"""A toy dialect that implements only the interface in `services.providers.base`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from services.domain.completion import Choice, WholeAnswer
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.events import ChoiceFinished, Event, Finished, TextDelta
from services.domain.spec import ChatCompletionSpec
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.base import Decoder, Notes, SseEvent, Target, UpstreamRequest

USAGE = Usage(prompt_token_count=1, completion_token_count=2, total_token_count=3)


class EchoDecoder:
    """Decodes `{"say": …}` and `{"end": true}`, without a fast path for texts."""

    def __init__(self) -> None:
        self.done = False
        self.usage: Usage | None = None

    def feed(self, event: SseEvent) -> list[Event]:
        """Decode one event."""
        value: dict[str, Any] = msgspec.json.decode(event.data)
        self.done = value.get("end", False)
        said = value.get("say")
        return [TextDelta(said)] if said else []

    def finish(self) -> list[Event]:
        """Decode the end of the stream."""
        if not self.done:
            raise UpstreamError(ErrorReason.UPSTREAM_DISCONNECTED, "cut")
        self.usage = USAGE
        stop = ChoiceFinished(finish_reason="stop", native_finish_reason="end")
        return [stop, Finished(usage=self.usage)]

    def whole(self, body: bytes) -> WholeAnswer:
        """Decode a document."""
        text = msgspec.json.decode(body)["say"]
        self.usage = USAGE
        message = Message(role="assistant", content=[TextPart(text=text)])
        choice = Choice(message=message, finish_reason="stop", native_finish_reason="end")
        return WholeAnswer(choices=[choice], usage=USAGE)


class EchoDialect:
    """Sends the last text, authenticated by a header of its own."""

    def encode(
        self, spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """Encode `spec`."""
        if spec.temperature is not None:
            notes.dropped("temperature", "An echo is never random.")
        part = spec.messages[-1].content[-1]
        text = part.text if isinstance(part, TextPart) else ""
        body = {"model": target.model, "text": text}
        return UpstreamRequest(path="/echo", body=msgspec.json.encode(body), streamed=stream)

    def decoder(self, target: Target, *, details: bool = False) -> Decoder:  # noqa: ARG002 - the protocol's
        """Make a decoder."""
        return EchoDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:  # noqa: ARG002
        """Every refusal is overload."""
        return UpstreamError(ErrorReason.UPSTREAM_OVERLOADED, body.decode(), status=status)

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """The key."""
        return {"x-echo-key": key}
