"""The bytes of a stream as chunks, without I/O: cut into events, and decoded."""

from __future__ import annotations

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import UpstreamError
from services.providers.base import Batch, Chunks, Decoder
from services.providers.repeated_frame import RepeatedFrame
from services.providers.sse_parser import SseParser, event_of


class StreamReader:
    """Reads one stream."""

    __slots__ = ("_decoder", "_heard", "_parser", "_refrain", "over")

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._parser = SseParser()
        self._refrain = RepeatedFrame()
        self._heard = False
        self.over = False
        """Whether the answer is complete: nothing more is to be read."""

    def feed(self, data: bytes) -> tuple[Batch, UpstreamError | None]:
        """The chunks in `data`, which is empty at the end, and the failure after them."""
        decoder = self._decoder
        batch = Batch()
        chunks = batch.chunks
        try:
            self._read(self._parser.cut(data) if data else self._parser.rest(), chunks)
            self.over = decoder.done or not data
            if self.over:
                if not self._heard:
                    raise unreadable()
                chunks.extend(decoder.finish())
        except UpstreamError as error:
            return batch, error
        return batch, None

    def _read(self, blocks: list[bytes], chunks: Chunks) -> None:
        decoder, refrain = self._decoder, self._refrain
        begin = 0
        while begin < len(blocks):
            if texts := refrain.run(blocks, begin):
                decoder.texts(texts, chunks)
                begin += len(texts)
                continue
            block = blocks[begin]
            begin += 1
            event = event_of(block)
            if event is None:
                continue
            self._heard = True
            chunks.extend(decoder.feed(event))
            if decoder.done:
                return
            if decoder.text:
                refrain.hear(block, decoder.text)


def unreadable() -> UpstreamError:
    """What to raise for an answer that is none."""
    return UpstreamError(
        reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE, "The provider's answer cannot be read."
    )
