"""Block events: the content blocks of a stream, of which one at most is open, as events."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_encode = msgspec.json.Encoder().encode
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'


def event(name: str, members: Mapping[str, object]) -> bytes:
    """Return an event. Its data has the event's name as `type`, whatever the members have."""
    kind = {"type": name}
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({**kind, **members, **kind}))


class BlockEvents:
    """Writer of blocks, with an index without gaps. The caller takes the events from `out`."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.open: object = None
        """Identity of the open block. None: no block is open."""
        self._next = 0
        self._delta = b""

    def ensure(self, identity: object, block: Mapping[str, object]) -> None:
        """Open `block`, unless the block of this identity is open."""
        if self.open == identity:
            return
        self.close()
        index = self._next
        self.open = identity
        self._delta = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
            % index
        )
        self.out.append(event("content_block_start", {"index": index, "content_block": block}))

    def delta(self, kind: str, member: str, value: object) -> None:
        """Add to the open block."""
        piece = _encode({"type": kind, member: value})
        self.out.append(b"%b%b}\n\n" % (self._delta, piece))

    def close(self) -> None:
        """Close the open block, if there is one."""
        if self.open is not None:
            self.out.append(_STOP % self._next)
            self.open = None
            self._next += 1

    def whole(self, block: Mapping[str, object]) -> None:
        """Write a block that has no deltas."""
        self.ensure(object(), block)
        self.close()
