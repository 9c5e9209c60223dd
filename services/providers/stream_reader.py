"""Reader of a provider's stream, without I/O: splits the bytes into frames and decodes them."""

from __future__ import annotations

from typing import Protocol

from services.domain.events import Event
from services.errors import UpstreamError
from services.providers.base import Decoder, SseEvent
from services.providers.repeated_frame import RepeatedFrame, RepeatedTextDecoder
from services.providers.sse_parser import SseParser, event_of
from services.providers.surrogate_joiner import joiner_of
from services.providers.unusable_answers import unreadable


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

    __slots__ = (
        "_decoder",
        "_frame",
        "_has_events",
        "_parser",
        "_repeats",
        "_text_decoder",
        "complete",
    )

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._text_decoder = decoder if isinstance(decoder, RepeatedTextDecoder) else None
        self._parser = SseParser()
        self._frame = RepeatedFrame(self._text_decoder.padding if self._text_decoder else None)
        self._has_events = False
        self._repeats = False  # Whether the next event begins the data, and may have the frame.
        self.complete = False

    def feed(self, data: bytes) -> tuple[list[Event], UpstreamError | None]:
        """Decode `data`."""
        events: list[Event] = []
        text_decoder = self._text_decoder
        if self._repeats and text_decoder is not None and (text := self._frame.text(data)):
            text_decoder.add_texts((text,), events)
            return events, None
        return self._read(data, events)

    def _read(self, data: bytes, events: list[Event]) -> tuple[list[Event], UpstreamError | None]:
        begin = 0
        try:
            blocks = self._parser.split(data) if data else self._parser.rest()
            while begin < len(blocks) and not self._decoder.done:
                frame, text_decoder = self._frame, self._text_decoder
                texts = frame.read(blocks, begin) if frame.is_confirmed else None
                if texts and text_decoder is not None:
                    text_decoder.add_texts(texts, events)
                    begin += len(texts)
                    continue
                block = blocks[begin]
                begin += 1
                if sse_event := event_of(block):
                    self._has_events = True
                    try:
                        events += self._decoder.feed(sse_event)
                    except UpstreamError as error:
                        events += self._joined(sse_event, error)
                    else:
                        if text_decoder is not None and text_decoder.last_text:
                            frame.learn(block, text_decoder.last_text)
                        else:
                            # A member that this event has changed may change back in the next one.
                            frame.is_confirmed = False
            if self._decoder.done or not data:
                events += self._end()
            else:
                self._repeats = self._frame.is_confirmed and self._parser.is_between_events
        except UpstreamError as error:
            return events, error
        return events, None

    def _joined(self, sse_event: SseEvent, error: UpstreamError) -> list[Event]:
        """Decode again what the decoder has refused, where it was half a character."""
        self._text_decoder, self._frame = None, RepeatedFrame()
        self._decoder = joiner_of(self._decoder, sse_event, error)
        return self._decoder.feed(sse_event)

    def _end(self) -> list[Event]:
        self.complete = True
        if not self._has_events:
            raise unreadable()
        return self._decoder.finish()
