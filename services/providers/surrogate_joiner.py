r"""Halves of surrogate pairs in the JSON of an answer.

Servers that cut a text after any 16-bit unit send an emoji in two pieces, `\ud83d` and `\ude00`.
JSON allows it, but a half is no character, so decoders of dialects refuse it. Here a half waits for
the next piece of the same text, and a half that stays alone becomes U+FFFD. None of this code runs
unless a decoder has refused an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from itertools import groupby
from typing import NamedTuple, TypeAlias

from services.domain.completion import WholeAnswer
from services.domain.error_reason import ErrorReason
from services.domain.events import Event
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.base import Decoder, SseEvent

HALVES_MAX = 64
"""Halves that wait at the same time. More are replaced at once."""

PIECES = frozenset(
    {
        *("content", "delta", "refusal", "text"),
        *("reasoning", "reasoning_content", "thinking"),
        *("arguments", "input", "partial_json"),
    }
)
"""Members whose text arrives in pieces, in any dialect."""

NESTING_MAX = 100
"""Levels of JSON that are kept. No text of an answer is deeper."""

ENDINGS = frozenset(
    {"content_block_start", "content_block_stop", "message_delta", "message_stop", "error"}
)
"""Types of events that end a text, where events have types."""

_CONTEXT = frozenset({"index", "type", "finish_reason", "native_finish_reason"})
"""Members that say to what a text belongs, and whether it was the last one."""

_REPLACEMENT = "\ufffd"
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")
_FIRST_HALF_AT_END = re.compile("[\ud800-\udbff]\\Z")

_Place: TypeAlias = tuple[str | int, ...]
"""Path of a text in the JSON of events. An object in an array is known by its `index`."""


class _Waiting(NamedTuple):
    """Half that waits for the next piece of its text."""

    half: str
    name: str
    """Name of the event that it ended."""
    event: object
    """The JSON of that event."""


class SurrogateJoiner(Decoder):
    """Decoder of a stream with halves of pairs, around the decoder of its dialect."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._waiting: dict[_Place, _Waiting] = {}

    def feed(self, event: SseEvent) -> list[Event]:
        """Decode one event."""
        if not self._waiting:
            try:
                return self._decoder.feed(event)
            except UpstreamError as error:
                if not may_have_halves(error, event.data):
                    raise
        return self._joined(event)

    @property
    def done(self) -> bool:
        """Whether the provider has marked the end of the stream."""
        return self._decoder.done

    def finish(self) -> list[Event]:
        """End the stream."""
        return self._replace_halves([*self._waiting]) + self._decoder.finish()

    def whole(self, body: bytes) -> WholeAnswer:
        """Decode an answer that is one JSON document."""
        return decode_whole(self._decoder, body)

    @property
    def usage(self) -> Usage | None:
        """The usage reported so far."""
        return self._decoder.usage

    def _joined(self, event: SseEvent) -> list[Event]:
        """Decode an event with the halves that waited for it, without those that will wait."""
        found = _read(event.data)
        if found is None:  # Such as `[DONE]`.
            return self._replace_halves([*self._waiting]) + self._decoder.feed(event)
        halves: dict[_Place, str] = {}

        def join(text: str, place: _Place) -> str:
            waiting = self._waiting.pop(place, None)
            if waiting is not None:
                text = waiting.half + text
            if (
                place[-1] in PIECES
                and _FIRST_HALF_AT_END.search(text)
                and len(self._waiting) + len(halves) < HALVES_MAX
            ):
                halves[place] = text[-1]
                text = text[:-1]
            return _replaced(text)

        clean = _mapped(found, (_index_of(found, 0),), join)
        ended = _ended_places(found)
        events = self._replace_halves([place for place in self._waiting if _is_below(place, ended)])
        data = event.data if clean == found else _json(clean)
        events += self._decoder.feed(SseEvent(event.name, data))
        for place, half in halves.items():
            self._waiting[place] = _Waiting(half, event.name, clean)
        return events

    def _replace_halves(self, places: Collection[_Place]) -> list[Event]:
        """Decode U+FFFD in these places: their other halves do not come."""
        events: list[Event] = []
        waiting = [(place, self._waiting.pop(place)) for place in places]
        for _, group in groupby(waiting, key=lambda item: id(item[1].event)):
            (first, half), *others = group
            replaced = {first, *(place for place, _ in others)}
            event = _replacement(half.event, first[:1], replaced)
            events += self._decoder.feed(SseEvent(half.name, _json(event)))
        return events


def joiner_of(decoder: Decoder, event: SseEvent, error: UpstreamError) -> SurrogateJoiner | None:
    """Wrap a decoder that refused `event` with `error`. None: the event has no halves."""
    if isinstance(decoder, SurrogateJoiner) or not may_have_halves(error, event.data):
        return None
    return SurrogateJoiner(decoder)


def may_have_halves(error: UpstreamError, data: bytes) -> bool:
    """Whether a decoder may have refused `data` for half a surrogate pair."""
    return error.reason == ErrorReason.UPSTREAM_BAD_RESPONSE and bool(_ESCAPED_HALF.search(data))


def decode_whole(decoder: Decoder, body: bytes) -> WholeAnswer:
    """Decode an answer that is one JSON document, with U+FFFD for halves of pairs."""
    try:
        return decoder.whole(body)
    except UpstreamError as error:
        if (answer := decode_replaced(decoder, body, error)) is None:
            raise
        return answer


def decode_replaced(decoder: Decoder, body: bytes, error: UpstreamError) -> WholeAnswer | None:
    """Decode a document that `decoder` has refused with `error`, with U+FFFD for halves of pairs.

    None: it has no halves.
    """
    found = read_replaced(body) if may_have_halves(error, body) else None
    return None if found is None else decoder.whole(_json(found))


def read_replaced(data: bytes) -> object | None:
    """Decode JSON with U+FFFD for halves of pairs. None: it has no halves, or is not JSON."""
    found = _read(data) if _ESCAPED_HALF.search(data) else None
    return found and _mapped(found, (), lambda text, _: _replaced(text))


def _read(data: bytes) -> object | None:
    """Decode JSON that may have halves. None: it is not JSON."""
    try:
        found: object = json.loads(data.decode(), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return found


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _replaced(text: str) -> str:
    """The text with pairs joined, and U+FFFD for every half that is alone."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _mapped(value: object, place: _Place, change: Callable[[str, _Place], str]) -> object:
    """The JSON value with all of its texts changed."""
    if len(place) > NESTING_MAX:
        return None
    if isinstance(value, str):
        return change(value, place)
    if isinstance(value, list):
        return [
            _mapped(item, (*place, _index_of(item, number)), change)
            for number, item in enumerate(value)
        ]
    if isinstance(value, dict):
        return {
            (name := _replaced(key)): _mapped(item, (*place, name), change)
            for key, item in value.items()
        }
    return value


def _index_of(value: object, number: int) -> int:
    """The index of a choice, block or tool call: its own, or else its `number` in the array."""
    index = value.get("index") if isinstance(value, dict) else None
    return index if isinstance(index, int) else number


def _ended_places(event: object) -> list[_Place]:
    """Places whose texts end with this event: of an Anthropic block, or of an OpenAI choice."""
    if not isinstance(event, dict):
        return []
    kind = event.get("type")
    if isinstance(kind, str) and kind in ENDINGS:
        return [()]
    choices = event.get("choices")
    return [
        (_index_of(event, 0), "choices", _index_of(choice, number))
        for number, choice in enumerate(choices if isinstance(choices, list) else ())
        if isinstance(choice, dict) and choice.get("finish_reason")
    ]


def _is_below(place: _Place, others: Collection[_Place]) -> bool:
    return any(place[: len(other)] == other for other in others)


def _replacement(value: object, place: _Place, replaced: Collection[_Place]) -> object:
    """The value in this place of an event, with U+FFFD as its only texts."""
    if isinstance(value, dict):
        return {
            name: _replacement(item, (*place, name), replaced)
            for name, item in value.items()
            if name in _CONTEXT or _is_above((*place, name), replaced)
        }
    if isinstance(value, list):
        places = [(*place, _index_of(item, number)) for number, item in enumerate(value)]
        return [
            _replacement(item, inner, replaced)
            for item, inner in zip(value, places, strict=True)
            if _is_above(inner, replaced)
        ]
    return _REPLACEMENT if place in replaced else value


def _is_above(place: _Place, others: Collection[_Place]) -> bool:
    return any(_is_below(other, [place]) for other in others)
