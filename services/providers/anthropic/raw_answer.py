"""Decoder of an answer of the Messages API that is passed on as it is."""

from __future__ import annotations

import re

from services.common.json_places import replace_string
from services.domain.completion import Choice, WholeAnswer
from services.domain.error_reason import ErrorReason
from services.domain.events import ChoiceFinished, Event, Finished, RawForm
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.anthropic import wire
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.anthropic.usage import UsageCount
from services.providers.base import SseEvent, Target
from services.providers.errors_in_answers import error_in_answer, raise_flat_error
from services.providers.failure_rules import SECRETS
from services.providers.failures import read_error
from services.providers.finish_reasons import finish_reason, raise_if_failure
from services.providers.raw_lane import RawDecoder, Taken
from services.providers.raw_stream import RawStreamReader
from services.providers.sse_parser import DONE, event_of
from services.providers.stream_reader import Reader, StreamReader

_EVENTS = re.compile(
    rb"((?:event: content_block_delta\ndata: [^\r\n]*\n\n)+)|.+?(?:\r\n\r?\n|\n\r?\n|\r\r|\Z)",
    re.DOTALL,
)
"""An event, or a run of deltas, of which nothing is read."""


class RawAnswerDecoder(RawDecoder):
    """See `services.providers.raw_lane.RawDecoder`."""

    def __init__(self, target: Target, *, streamed: bool) -> None:
        """Create the decoder of an answer to a request that asked for a stream, or for none."""
        self._model = "" if target.model == target.public_model else target.public_model
        self._streamed = streamed
        self._translated = AnthropicDecoder()
        self._usage = UsageCount()
        self._stop_reason = ""
        self._has_ending = self._stopped = False
        self._has_begun = False
        self._held = b""
        self._unread: list[bytes] = []
        self._counted: StreamReader | None = None

    def reader(self) -> Reader:
        """Return the reader of the answer's stream."""
        return RawStreamReader(self) if self._streamed else StreamReader(self._translated)

    def take(self, data: bytes) -> Taken:
        """Read whole events, but for the deltas among them.

        The start of the message waits for its first content, so that an error in its place lets
        another target answer.
        """
        ready = b""
        for match in _EVENTS.finditer(data):
            block = match[0]
            if match[1] is not None:
                self._unread.append(block)
                ready, self._held, self._has_begun = ready + self._held + block, b"", True
                continue
            event = event_of(block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n"))
            try:
                progresses, block = self._read(event, block)
            except UpstreamError as error:
                if not self._has_begun or event is None or not _may_be_shown(event):
                    return Taken(ready, error)
                return Taken(ready + self._held + block, error, shows_failure=True)
            self._held += block
            self._has_begun = self._has_begun or progresses
            if progresses:
                self._unread.append(block)
                ready, self._held = ready + self._held, b""
        return Taken(ready)

    @property
    def done(self) -> bool:
        """Whether the message has ended, and its finish reason is known."""
        return self._stopped and self._has_ending

    def finish(self) -> list[Event]:
        """End the stream."""
        if not self._stopped and not self._stop_reason:
            raise UpstreamError(
                ErrorReason.UPSTREAM_DISCONNECTED, "The provider's answer broke off."
            )
        ending = ChoiceFinished(
            finish_reason=finish_reason(self._stop_reason), native_finish_reason=self._stop_reason
        )
        return [ending, Finished(usage=self.usage, service_tier=self._usage.service_tier)]

    def whole(self, body: bytes) -> WholeAnswer:
        """Read an answer that is one document; translate it where a stream was asked for."""
        if self._streamed:
            return self._translated.whole(body)
        message = wire.read(body, wire.MESSAGE)
        if message.type == "error" or bytes(message.error):
            raise error_in_answer(body)
        if message.content is None:
            raise error_in_answer(body) if read_error(body).message else wire.unreadable()
        native = message.stop_reason or ""
        raise_if_failure(native)
        self._usage.add(message.usage)
        self._unread.append(body)
        choice = Choice(finish_reason=finish_reason(native), native_finish_reason=native)
        return WholeAnswer(
            choices=[choice],
            usage=self.usage,
            service_tier=self._usage.service_tier,
            raw_body=replace_string(body, ("model",), self._model) if self._model else body,
        )

    def unread(self) -> list[Event]:
        """Return what was passed on since the last call as content."""
        if not self._unread:
            return []
        data = b"".join(self._unread)
        self._unread.clear()
        if self._streamed:
            self._counted = self._counted or StreamReader(self._translated)
            events, _ = self._counted.feed(data)
        else:
            events = _events_of(self._translated, data)
        return [event for event in events if not isinstance(event, ChoiceFinished | Finished)]

    def feed(self, event: SseEvent) -> list[Event]:
        """Translate one event, of a stream where none was asked for."""
        return self._translated.feed(event)

    @property
    def usage(self) -> Usage | None:
        """The usage reported so far."""
        return self._usage.usage or self._translated.usage

    def _read(self, event: SseEvent | None, block: bytes) -> tuple[bool, bytes]:
        """Read an event. Return whether it is progress of the answer, and its bytes to pass on."""
        if event is None or event.name == "ping" or event.data == DONE:
            return False, block
        if event.name == "content_block_delta":
            return True, block
        opened = wire.read(event.data, wire.EVENT)
        if event.name == "error" or opened.type == "error" or bytes(opened.error):
            raise error_in_answer(event.data)
        match opened.type:
            case "ping":
                return False, block
            case "message_start":
                self._usage.add(wire.read(opened.message, wire.MESSAGE).usage)
                return self._has_begun, self._with_model(block)
            case "message_delta":
                self._has_ending = True
                self._usage.add(opened.usage)
                ending = wire.read(opened.delta, wire.ENDING)
                self._stop_reason = ending.stop_reason or self._stop_reason
                raise_if_failure(self._stop_reason)
            case "message_stop":
                self._stopped = True
            case "":
                raise_flat_error(event.data, wire.others(event.data, wire.EVENT_FIELDS))
        return True, block

    def _with_model(self, block: bytes) -> bytes:
        if not self._model:
            return block
        begin = block.find(b"{")
        return block[:begin] + replace_string(block[begin:], ("message", "model"), self._model)


def _may_be_shown(event: SseEvent) -> bool:
    """Whether an event is the provider's error, and has nothing that callers must not see."""
    if event.name != "error":
        return False
    message = read_error(event.data).message
    return not any(pattern.search(message) for pattern, _ in SECRETS)


def translated(form: RawForm, data: bytes) -> list[Event]:
    """Return the events of a complete answer that was passed on, but for its start."""
    decoder = AnthropicDecoder(details=True)
    if form == "document":
        return decoder.whole(data).events()
    reader = StreamReader(decoder)
    events, failure = reader.feed(data)
    if failure is None and not reader.complete:
        rest, failure = reader.feed(b"")
        events += rest
    if failure is not None:
        raise failure
    return events


def _events_of(decoder: AnthropicDecoder, document: bytes) -> list[Event]:
    """Return the events of a document; none where it cannot be translated."""
    try:
        return decoder.whole(document).events()
    except UpstreamError:
        return []
