"""A provider's stream as chunks, without I/O: split into events, and decoded."""

from __future__ import annotations

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.base import Batch, Chunks, Decoder
from services.providers.repeated_frame import RepeatedFrame, RepeatedTextDecoder
from services.providers.sse_parser import SseParser, event_of


class StreamReader:
    """The reader of one stream."""

    __slots__ = ("_decoder", "_frame", "_has_events", "_parser", "_text_decoder", "complete")

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._text_decoder = decoder if isinstance(decoder, RepeatedTextDecoder) else None
        self._parser = SseParser()
        self._frame = RepeatedFrame()
        self._has_events = False
        self.complete = False
        """Whether the answer is complete: the rest of the stream is not read."""

    def feed(self, data: bytes) -> tuple[Batch, UpstreamError | None]:
        """The chunks in `data`, and the failure after them. Empty `data` ends the stream."""
        decoder = self._decoder
        batch = Batch()
        chunks = batch.chunks
        try:
            self._read(self._parser.split(data) if data else self._parser.rest(), chunks)
            self.complete = decoder.done or not data
            if self.complete:
                if not self._has_events:
                    raise unreadable()
                chunks.extend(decoder.finish())
        except UpstreamError as error:
            return batch, error
        return batch, None

    def _read(self, blocks: list[bytes], chunks: Chunks) -> None:
        decoder, text_decoder, frame = self._decoder, self._text_decoder, self._frame
        begin = 0
        while begin < len(blocks):
            if text_decoder is not None and (texts := frame.read(blocks, begin)):
                text_decoder.add_texts(texts, chunks)
                begin += len(texts)
                continue
            block = blocks[begin]
            begin += 1
            event = event_of(block)
            if event is None:
                continue
            self._has_events = True
            chunks.extend(decoder.feed(event))
            if decoder.done:
                return
            if text_decoder is not None and text_decoder.last_text:
                frame.learn(block, text_decoder.last_text)


def unreadable() -> UpstreamError:
    """The error for an answer that is neither a stream nor a JSON document."""
    return UpstreamError(ErrorReason.UPSTREAM_BAD_RESPONSE, "The provider's answer cannot be read.")
