"""Decoder of an answer of the Messages API that is passed on as it is."""

from __future__ import annotations

from services.common.json_places import replace_string
from services.domain.completion import Choice, WholeAnswer
from services.domain.events import ChoiceFinished, Event, Finished, RawContent
from services.domain.usage import Usage
from services.providers.anthropic import wire
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.anthropic.usage import UsageCount
from services.providers.base import SseEvent, Target
from services.providers.errors_in_answers import error_in_answer, raise_flat_error
from services.providers.failures import read_error
from services.providers.finish_reasons import checked_reason, finish_reason, raise_if_failure
from services.providers.raw_answer import RawAnswerDecoder, events_pattern, tells_no_secret
from services.providers.sse_parser import DONE
from services.providers.unusable_answers import broken_off, unreadable

_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class RawMessageDecoder(RawAnswerDecoder):
    """See `services.providers.raw_lane.RawDecoder`."""

    events = events_pattern(rb"content_block_delta")

    def __init__(self, target: Target, *, streamed: bool) -> None:
        """Create the decoder of an answer to a request that asked for a stream, or for none."""
        super().__init__(target, AnthropicDecoder, streamed=streamed)
        self._usage = UsageCount()
        self._stop_reason = ""
        self._has_ending = self._stopped = False

    @property
    def done(self) -> bool:
        """Whether the message has ended, and its finish reason is known."""
        return self._stopped and self._has_ending

    def finish(self) -> list[Event]:
        """End the stream."""
        if not self._stopped and not self._stop_reason:
            raise broken_off()
        ending = ChoiceFinished(
            finish_reason=finish_reason(self._stop_reason), native_finish_reason=self._stop_reason
        )
        # Some providers close after `message_delta`; to clients the message would be cut off.
        stop = [] if self._stopped else [RawContent(_STOP)]
        return [*stop, ending, Finished(usage=self.usage, service_tier=self._usage.service_tier)]

    def document(self, body: bytes) -> WholeAnswer:
        """Read an answer that is one document."""
        message = wire.read(body, wire.MESSAGE)
        if message.type == "error" or bytes(message.error):
            raise error_in_answer(body)
        if message.content is None:
            raise error_in_answer(body) if read_error(body).message else unreadable()
        native = message.stop_reason or ""
        reason = checked_reason(native)
        self._usage.add(message.usage)
        self._usage.add_blocks(message.content)
        choice = Choice(finish_reason=reason, native_finish_reason=native)
        return WholeAnswer(
            choices=[choice],
            usage=self._usage.usage,
            service_tier=self._usage.service_tier,
            raw_body=replace_string(body, ("model",), self.model) if self.model else body,
        )

    @property
    def reported(self) -> Usage | None:
        """The usage that was read so far."""
        return self._usage.usage

    def shown_failure(self, event: SseEvent, block: bytes) -> bytes:
        """Return the event of an error as it is, if it may be shown."""
        return block if event.name == "error" and tells_no_secret(event.data) else b""

    def read_event(self, event: SseEvent, block: bytes) -> tuple[bool, bytes]:
        """Read an event."""
        if event.name == "ping" or event.data == DONE:
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
                return self.has_begun, self._with_model(block)
            case "content_block_start":
                kind = wire.read(opened.content_block, wire.KIND).type
                self._usage.add_block(opened.content_block, kind)
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
        if not self.model:
            return block
        begin = block.find(b"{")
        return block[:begin] + replace_string(block[begin:], ("message", "model"), self.model)
