"""Reader of a provider's stream, without I/O: splits the bytes into frames and decodes them."""

from __future__ import annotations

from typing import Protocol

from services.domain.error_reason import ErrorReason
from services.domain.events import Event
from services.errors import UpstreamError
from services.providers.base import Decoder
from services.providers.repeated_frame import RepeatedFrame, RepeatedTextDecoder
from services.providers.sse_parser import SseParser, event_of
from services.providers.surrogate_joiner import joiner_of


class Reader(Protocol):
    """Reader of one stream."""

    complete: bool
    """Whether the answer is complete: the rest of the stream is not read."""

    def feed(self, data: bytes) -> tuple[list[Event], UpstreamError | None]:
        """Decode `data`: its events, which may be none, and the failure after them.

        Empty `data` ends the stream.
        """


class StreamReader:
    """Reader of one stream. See `Reader`."""

    __slots__ = ("_decoder", "_frame", "_has_events", "_parser", "_text_decoder", "complete")

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._text_decoder = decoder if isinstance(decoder, RepeatedTextDecoder) else None
        self._parser = SseParser()
        self._frame = RepeatedFrame()
        self._has_events = False
        self.complete = False

    def feed(self, data: bytes) -> tuple[list[Event], UpstreamError | None]:
        """Decode `data`."""
        events: list[Event] = []
        try:
            self._read(self._parser.split(data) if data else self._parser.rest(), events)
            self.complete = self._decoder.done or not data
            if self.complete:
                if not self._has_events:
                    raise unreadable()
                events += self._decoder.finish()
        except UpstreamError as error:
            return events, error
        return events, None

    def _read(self, blocks: list[bytes], events: list[Event]) -> None:
        decoder, text_decoder, frame = self._decoder, self._text_decoder, self._frame
        begin = 0
        while begin < len(blocks):
            if text_decoder is not None and (texts := frame.read(blocks, begin)):
                text_decoder.add_texts(texts, events)
                begin += len(texts)
                continue
            block = blocks[begin]
            begin += 1
            sse_event = event_of(block)
            if sse_event is None:
                continue
            self._has_events = True
            try:
                events += decoder.feed(sse_event)
            except UpstreamError as error:
                decoder = self._decoder = joiner_of(decoder, sse_event, error)
                text_decoder = self._text_decoder = None
                events += decoder.feed(sse_event)
            if decoder.done:
                return
            if text_decoder is not None and text_decoder.last_text:
                frame.learn(block, text_decoder.last_text)


def unreadable() -> UpstreamError:
    """The error for an answer that is neither a stream nor a JSON document."""
    return UpstreamError(ErrorReason.UPSTREAM_BAD_RESPONSE, "The provider's answer cannot be read.")
