"""Dialect whose events are words, and a caller of a scripted provider that speaks it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing

import msgspec
import pytest

from services.capabilities import Capabilities
from services.clock import SystemClock
from services.config import ChannelConfig
from services.domain.completion import Choice, WholeAnswer
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.events import ChoiceFinished, Event, Finished, TextDelta
from services.domain.spec import ChatCompletionSpec
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.base import Notes, SseEvent, Target, UpstreamRequest
from services.providers.channel_failures import ChannelFailures
from services.providers.http import HttpClient
from services.providers.upstream import Upstream, UpstreamAnswer
from tests.stand.clock import FakeClock
from tests.stand.upstream import (
    FakeUpstream,
    Step,
)

FINISHED = Finished()
SECRET = "sk-canary"


class Words:
    """Decoder: data are words; `stop` is a finish reason, `[DONE]` the end, `ping` nothing."""

    def __init__(self) -> None:
        self.done = False
        self.usage: Usage | None = None
        self._stopped = False

    def feed(self, event: SseEvent) -> list[Event]:
        """Return one event for a word."""
        match event.data:
            case b"[DONE]":
                self.done = True
            case b"stop":
                self._stopped = True
            case b"error":
                raise UpstreamError(ErrorReason.UPSTREAM_ERROR, "It said so.")
            case b"ping":
                pass
            case _:
                return [TextDelta(event.data.decode())]
        return []

    def finish(self) -> list[Event]:
        """Return the end. Raise UPSTREAM_DISCONNECTED without a finish reason."""
        if not self._stopped:
            raise UpstreamError(ErrorReason.UPSTREAM_DISCONNECTED, "Not complete.")
        return [FINISHED]

    def whole(self, body: bytes) -> WholeAnswer:
        """Return the document as one text."""
        message = Message(role="assistant", content=[TextPart(text=body.decode())])
        return WholeAnswer(choices=[Choice(message=message, finish_reason="stop")])


class Plain:
    """Dialect of `Words`."""

    def encode(
        self, spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """Raise NotImplementedError: the tests make their own requests."""
        raise NotImplementedError

    def decoder(self, target: Target, *, details: bool = False) -> Words:  # noqa: ARG002 - the protocol's
        """Return a new decoder."""
        return Words()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return an error whose message has what it was given."""
        message = f"{headers.get('x-why', '')} {len(body)} {body[:20].decode()}"
        return UpstreamError(ErrorReason.UPSTREAM_ERROR, message, status=status)

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """Return the key as a bearer token."""
        return {"authorization": f"Bearer {key}"}


def shown(event: Event) -> str:
    """Return the text of an event, or `.` for the end."""
    return "." if event == FINISHED else text_of(event)


def text_of(event: Event) -> str:
    """Return the text of an event. Empty: it is of another kind."""
    return event.text if isinstance(event, TextDelta) else ""


class Caller:
    """Caller of the scripted provider through `Upstream`."""

    def __init__(self, upstream: FakeUpstream, http: HttpClient) -> None:
        self.upstream = upstream
        self.http = http
        self.clock: SystemClock | FakeClock = SystemClock()
        self.failures = ChannelFailures(SystemClock())
        self.channel: dict[str, object] = {}
        self.decoder = Words()
        self.request = UpstreamRequest(path="/chat", body=b'{"a":1}', streamed=True)

    @property
    def target(self) -> Target:
        """The channel, whose provider is the scripted one."""
        channel = ChannelConfig(name="a", dialect="plain", base_url=self.upstream.url)
        return Target(
            channel=msgspec.structs.replace(channel, **self.channel),
            model="m",
            public_model="m",
            capabilities=Capabilities(),
        )

    def answer(self) -> UpstreamAnswer:
        """Return the answer to a new call."""
        self.decoder = Words()
        upstream = Upstream(self.http, self.clock, self.failures)
        return upstream.answer(self.request, self.target, Plain(), self.decoder)

    async def batches(self, *script: Step) -> list[list[str]]:
        """Return the batches of a call that is answered by `script`, `.` for the end."""
        if script:
            self.upstream.play(script)
        async with aclosing(self.answer()) as batches:
            return [
                [shown(event) for event in batch if not isinstance(event, ChoiceFinished)]
                async for batch in batches
            ]

    async def failure(self, *script: Step) -> tuple[list[str], UpstreamError]:
        """Return the texts of a call that `script` answers before its failure, and the error."""
        if script:
            self.upstream.play(script)
        texts: list[str] = []

        async def listen() -> None:
            async with aclosing(self.answer()) as batches:
                async for batch in batches:
                    texts.extend(text_of(event) for event in batch)

        with pytest.raises(UpstreamError) as failed:
            await listen()
        assert SECRET not in failed.value.message
        assert "127.0.0.1" not in failed.value.message
        return texts, failed.value
