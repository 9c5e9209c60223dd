"""Response events: the events of one stream, with their sequence numbers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_encode = msgspec.json.Encoder().encode


class ResponseEvents:
    """Writer of events. The caller takes them with `taken`.

    A silent one writes nothing: whole answers are made of the same items as streams.
    """

    __slots__ = ("_is_silent", "_out", "_sequence_number")

    def __init__(self, *, silent: bool = False) -> None:
        self._is_silent = silent
        self._out: list[bytes] = []
        self._sequence_number = 0

    def write(self, name: str, members: Mapping[str, object]) -> None:
        """Write an event. Its data has the event's name as `type`."""
        if not self._is_silent:
            data = _encode({"type": name, **members, "sequence_number": self._sequence_number})
            self._out.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))
            self._sequence_number += 1

    def write_delta(self, prefix: bytes, text: str, suffix: bytes) -> None:
        """Write an event of a text: the prefix of `delta_prefix`, the text, and `suffix`."""
        if not self._is_silent:
            self._out.append(
                b'%b%b%b,"sequence_number":%d}\n\n'
                % (prefix, _encode(text), suffix, self._sequence_number)
            )
            self._sequence_number += 1

    def taken(self) -> bytes:
        """Return the events that were written since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out


def delta_prefix(name: str, place: Mapping[str, object]) -> bytes:
    """Return the bytes of an event with these members before the value of its `delta`."""
    data = _encode({"type": name, **place})[:-1]
    return b'event: %b\ndata: %b,"delta":' % (name.encode(), data)
