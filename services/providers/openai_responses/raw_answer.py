"""Decoder of an answer of the Responses API that is passed on as it is."""

from __future__ import annotations

from collections import Counter
from functools import partial

import msgspec
from msgspec import Raw

from services.common.json_errors import NOT_JSON
from services.common.json_places import replace_string
from services.domain.completion import Choice, WholeAnswer
from services.domain.events import ChoiceFinished, Event, Finished
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.base import SseEvent, Target
from services.providers.errors_in_answers import error_in_answer, raise_flat_error
from services.providers.finish_reasons import finish_reason
from services.providers.openai.odd_fields import read
from services.providers.openai_responses import wire
from services.providers.openai_responses.answer_end import native_reason, read_document
from services.providers.openai_responses.call_item import CUSTOM, FUNCTION
from services.providers.openai_responses.output import BILLED, billed_tool
from services.providers.openai_responses.response import ENDS, ERRORS, HEADS, ResponsesDecoder
from services.providers.openai_responses.response_members import usage_of
from services.providers.raw_answer import RawAnswerDecoder, events_pattern, tells_no_secret
from services.providers.sse_parser import DONE
from services.providers.unusable_answers import broken_off, unreadable

_ITEM_DONE = "response.output_item.done"
_READ = b"|".join(
    name.removeprefix("response.").encode() for name in (*HEADS, *ENDS, *ERRORS, _ITEM_DONE)
)
_TOOLS = frozenset(BILLED.values())
_IDLE = frozenset({"ping", "keepalive"})
"""Events that only keep a stream alive."""


class _Item(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None


_ITEM = msgspec.json.Decoder(_Item)


class RawResponseDecoder(RawAnswerDecoder):
    """See `services.providers.raw_lane.RawDecoder`.

    Of its items only the types are read: some are calls, which the caller runs, or which the
    provider bills.
    """

    _usage: Usage | None = None
    _service_tier = ""
    _finished: ChoiceFinished | None = None
    _has_head = False

    events = events_pattern(rb"response\.(?!(?:%b)\n)[a-z_.]+" % _READ)

    def __init__(self, target: Target, *, streamed: bool) -> None:
        """Create the decoder of an answer to a request that asked for a stream, or for none."""
        super().__init__(target, partial(ResponsesDecoder, target.model), streamed=streamed)
        self._kinds: dict[int, str] = {}

    @property
    def done(self) -> bool:
        """Whether the last event has been received."""
        return self._finished is not None

    def finish(self) -> list[Event]:
        """End the stream."""
        if self._finished is None:
            raise broken_off() if self._has_head or self.has_begun else unreadable()
        return [self._finished, Finished(usage=self.usage, service_tier=self._service_tier)]

    def document(self, body: bytes) -> WholeAnswer:
        """Read an answer that is one document."""
        document = read_document(body)
        ending = self._end(document.found, document.raw)
        choice = Choice(
            finish_reason=ending.finish_reason, native_finish_reason=ending.native_finish_reason
        )
        return WholeAnswer(
            choices=[choice],
            usage=self.reported,
            service_tier=self._service_tier,
            raw_body=replace_string(body, ("model",), self.model) if self.model else body,
        )

    @property
    def reported(self) -> Usage | None:
        """The usage that was read so far, with the calls of tools that the provider has run."""
        if _TOOLS.isdisjoint(self._kinds.values()):
            return self._usage
        counts = dict(Counter(kind for kind in self._kinds.values() if kind in _TOOLS))
        return msgspec.structs.replace(self._usage or Usage(), provider_tool_counts=counts)

    def shown_failure(self, event: SseEvent, block: bytes) -> bytes:
        """Return the event of a failed response, if it may be shown.

        Clients take `error` for a stream that was cut: they get a failed response in its place.
        """
        try:
            found = read(event.data, wire.EVENT)
            response = wire.present(found.response)
            if found.type != "response.failed" or response is None:
                return b""
            error = wire.present(read(response, wire.RESPONSE).error) or response
        except UpstreamError:  # It failed because it cannot be read.
            return b""
        return self._with_model(block) if tells_no_secret(bytes(error)) else b""

    def read_event(self, event: SseEvent, block: bytes) -> tuple[bool, bytes]:
        """Read an event."""
        data = event.data
        if data == DONE or event.name in _IDLE:
            return False, block
        found = read(data, wire.EVENT)
        kind = found.type or event.name
        response = wire.present(found.response)
        if kind in HEADS:
            self._has_head = True
            if response is not None:
                self._take_head(read(response, wire.RESPONSE))
            return self.has_begun, self._with_model(block)
        if kind in ENDS:
            if response is None:
                raise unreadable()
            self._end(read(response, wire.RESPONSE), response, kind)
            return True, self._with_model(block)
        if kind == _ITEM_DONE:
            item = wire.present(found.item)
            if item is not None:
                self._kinds[found.output_index or 0] = _kind_of(item)
            return True, block
        if kind in ERRORS or wire.present(found.error) is not None:
            raise error_in_answer(data)
        if not kind:
            raise_flat_error(data, wire.others(data, {"type"}))
        return kind not in _IDLE, block

    def _take_head(self, found: wire.Response) -> None:
        self._service_tier = found.service_tier or self._service_tier
        usage = wire.present(found.usage)
        if usage is not None:
            self._usage = usage_of(usage) or self._usage

    def _end(self, found: wire.Response, raw: Raw, kind: str = "") -> ChoiceFinished:
        self._take_head(found)
        native = native_reason(found, raw, kind)
        for index, item in enumerate(found.output or ()):
            self._kinds[index] = _kind_of(item)
        kinds = self._kinds.values()
        reason = finish_reason(native)
        if reason == "stop" and (FUNCTION in kinds or CUSTOM in kinds):
            reason = "tool_calls"
        ending = ChoiceFinished(finish_reason=reason, native_finish_reason=native)
        self._finished = ending
        return ending

    def _with_model(self, block: bytes) -> bytes:
        if not self.model:
            return block
        begin = block.find(b"{")
        return block[:begin] + replace_string(block[begin:], ("response", "model"), self.model)


def _kind_of(item: Raw) -> str:
    """Return the type of an item; of a call that the provider bills, the name of its tool."""
    try:
        kind = _ITEM.decode(item).type or ""
    except NOT_JSON:
        return ""
    return billed_tool(wire.others(item, ())) if kind in BILLED else kind
