"""Reader of a provider's stream that is passed on as it is, without I/O."""

from __future__ import annotations

import re

from services.domain.events import Event, RawContent
from services.errors import UpstreamError
from services.providers.raw_lane import RawDecoder, Taken
from services.providers.sse_parser import is_complete
from services.providers.unusable_answers import OverlongAnswerError

EVENT_MAX = 16 * 1024 * 1024
"""Maximum size of one event in bytes."""

_BLANK_LINE = re.compile(rb"\r\n\r?\n|\n\r?\n|\r\r")
_BLANK_MAX = 4
_NOTHING = Taken(b"")


class RawStreamReader:
    """Reader of one stream: whole events as they are, however the stream is sliced."""

    __slots__ = ("_decoder", "_pending", "_pending_size", "_tail", "complete")

    def __init__(self, decoder: RawDecoder) -> None:
        self._decoder = decoder
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._tail = b""
        self.complete = False
        """Whether the answer is complete: the rest of the stream is not read."""

    def feed(self, data: bytes) -> tuple[list[Event], UpstreamError | None]:
        """Read `data`. Returns the events that are passed on, if any, and the failure after them.

        Empty `data` ends the stream.
        """
        decoder = self._decoder
        events: list[Event] = []
        try:
            whole = self._whole_events(data) if data else self._rest()
            taken = decoder.take(whole) if whole else _NOTHING
            if taken.data:
                events.append(RawContent(taken.data, taken.shows_failure))
            if taken.failure is not None:
                return events, taken.failure
            self.complete = decoder.done or not data
            if self.complete:
                events += decoder.finish()
        except UpstreamError as error:
            return events, error
        return events, None

    def _whole_events(self, data: bytes) -> bytes:
        """Return the events that `data` completes; the rest of it waits."""
        if not self._pending and data.endswith(b"\n\n"):
            return data
        begin = self._tail + data
        end = _last_end(begin) - len(self._tail)
        if end <= 0:
            self._wait(data)
            return b""
        whole = b"".join([*self._pending, data[:end]])
        self._pending.clear()
        self._pending_size, self._tail = 0, b""
        if end < len(data):
            self._wait(data[end:])
        return whole

    def _wait(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        self._tail = (self._tail + data)[1 - _BLANK_MAX :]
        if self._pending_size > EVENT_MAX:
            raise OverlongAnswerError

    def _rest(self) -> bytes:
        """Return the event that lacks its blank line, with one, if its data is complete.

        Without it the event and an error after it would be one.
        """
        rest = b"".join(self._pending)
        return rest.rstrip(b"\r\n") + b"\n\n" if is_complete(rest) else b""


def _last_end(data: bytes) -> int:
    """Return where the last blank line ends; 0: there is none."""
    if b"\r" not in data:
        begin = data.rfind(b"\n\n")
        return 0 if begin < 0 else begin + 2
    end = 0
    for blank in _BLANK_LINE.finditer(data):
        end = blank.end()
    return end
