"""Decoder of an answer that is passed on as it is, in as far as all dialects have it in common."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from services.domain.completion import WholeAnswer
from services.domain.events import ChoiceFinished, Event, Finished, RawForm
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.base import Decoder, SseEvent, Target
from services.providers.failure_rules import SECRETS
from services.providers.failures import read_error
from services.providers.raw_lane import RawDecoder, Taken
from services.providers.raw_stream import RawStreamReader
from services.providers.sse_parser import event_of
from services.providers.stream_reader import Reader, StreamReader


def events_pattern(unread: bytes) -> re.Pattern[bytes]:
    """Return the pattern of one event, or of a run of those whose names match `unread`.

    The run is the first group. Blank lines before an event are matched by themselves.
    """
    run = rb"((?:event: (?:%b)\ndata: [^\r\n]*\n\n)+)" % unread
    return re.compile(run + rb"|[\r\n]+|.+?(?:\r\n\r?\n|\n\r?\n|\r\r|\Z)", re.DOTALL)


class RawAnswerDecoder(RawDecoder):
    """See `services.providers.raw_lane.RawDecoder`. A dialect has a subclass."""

    events: ClassVar[re.Pattern[bytes]]
    """Pattern by `events_pattern`. Its runs are passed on unread: they are progress."""
    has_begun = False
    """Whether the content has begun."""
    _made: Decoder | None = None
    _held = b""
    _counted: StreamReader | None = None

    def __init__(
        self, target: Target, translated: Callable[[], Decoder], *, streamed: bool
    ) -> None:
        """Create the decoder of an answer to a request that asked for a stream, or for none.

        `translated` makes the decoder of what must be translated or counted.
        """
        self.model = "" if target.model == target.public_model else target.public_model
        """The name of the model to show. Empty: the provider's own."""
        self._streamed = streamed
        self._make = translated
        self._unread: list[bytes] = []

    @abstractmethod
    def read_event(self, event: SseEvent, block: bytes) -> tuple[bool, bytes]:
        """Read an event. Return whether it is progress, and its bytes to pass on.

        Raises UpstreamError where it says that the answer failed.
        """

    @abstractmethod
    def shown_failure(self, event: SseEvent, block: bytes) -> bytes:
        """Return the bytes to pass on of an event that failed the answer. Empty: none."""

    @abstractmethod
    def document(self, body: bytes) -> WholeAnswer:
        """Read an answer that is one document, for a request that asked for one."""

    @property
    @abstractmethod
    def reported(self) -> Usage | None:
        """The usage that was read so far."""

    def reader(self) -> Reader:
        """Return the reader of the answer's stream."""
        return RawStreamReader(self) if self._streamed else StreamReader(self._translated)

    def take(self, data: bytes) -> Taken:
        """Read whole events, but for runs of those that need not be read.

        The head of an answer waits for its first content, so that an error in its place lets
        another target answer. What follows the end is not passed on.
        """
        ready = b""
        for match in self.events.finditer(data):
            block = match[0]
            if match[1] is not None:
                self._unread.append(block)
                ready, self._held, self.has_begun = ready + self._held + block, b"", True
                continue
            event = event_of(block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n"))
            progresses = False
            if event is not None:
                try:
                    progresses, block = self.read_event(event, block)
                except UpstreamError as error:
                    shown = self.shown_failure(event, block) if self.has_begun else b""
                    if not shown:
                        return Taken(ready, error)
                    return Taken(ready + self._held + shown, error, shows_failure=True)
            self._held += block
            if progresses:
                self.has_begun = True
                self._unread.append(block)
                ready, self._held = ready + self._held, b""
            if self.done:
                break
        return Taken(ready)

    def whole(self, body: bytes) -> WholeAnswer:
        """Read an answer that is one document; translate it where a stream was asked for."""
        if self._streamed:
            return self._translated.whole(body)
        answer = self.document(body)
        self._unread.append(body)
        return answer

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
        return self.reported or (self._made.usage if self._made is not None else None)

    @property
    def _translated(self) -> Decoder:
        if self._made is None:
            self._made = self._make()
        return self._made


def tells_no_secret(error: bytes) -> bool:
    """Return whether the message of a provider's error has nothing that callers must not see."""
    message = read_error(error).message
    return not any(pattern.search(message) for pattern, _ in SECRETS)


def translated_events(decoder: Decoder, form: RawForm, data: bytes) -> list[Event]:
    """Return the events of a complete answer that was passed on, but for its start."""
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


def _events_of(decoder: Decoder, document: bytes) -> list[Event]:
    """Return the events of a document; none where it cannot be translated."""
    try:
        return decoder.whole(document).events()
    except UpstreamError:
        return []
