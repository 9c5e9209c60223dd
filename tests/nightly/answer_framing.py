"""Answers of providers as bytes on a connection, in odd, broken or hostile forms of HTTP."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.nightly.odd_answers import (
    HARMFUL,
    HARMLESS,
    INTERIM,
    PIECES,
    STATUS_LINES,
    STATUSES,
    TYPES,
)
from tests.stand.json_mutations import HOSTILE
from tests.stand.upstream import CUT, HALF_CLOSE, RESET, STALL, End, Script, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One answer."""

    script: Script
    is_content_intact: bool
    """Whether its content is the valid answer's, as far as it arrives."""
    is_right: bool
    """Whether it is a valid answer, in an unusual form at most."""
    is_broken: bool
    """Whether it breaks off before the end of its content."""
    least: bytes
    """The bytes that certainly arrive; empty where they are coded or may be lost."""

    @property
    def shown(self) -> str:
        """The script for a reader."""
        parts = (repr(each)[:700] if isinstance(each, bytes) else str(each) for each in self.script)
        return " | ".join(parts)[:2500]


def random_delivery(body: bytes, chance: random.Random, *, is_stream: bool) -> Delivery:
    """Return an answer with this body, or with one that is nearly this."""
    return _Maker(body, chance, is_stream=is_stream).made()


class _Maker:
    def __init__(self, body: bytes, chance: random.Random, *, is_stream: bool) -> None:
        self._body = body
        self._chance = chance
        self._is_stream = is_stream
        self._is_right = True
        self._is_intact = True
        self._is_broken = False
        self._least = b""
        self._headers: list[bytes] = []

    def made(self) -> Delivery:
        chance = self._chance
        if chance.random() < 0.3:
            self._change_body()
        line = self._status_line()
        self._type()
        self._headers += chance.choices(HARMLESS, k=chance.choice((0, 0, 1, 3)))
        if chance.random() < 0.08:
            self._headers.append(chance.choice(HARMFUL))
            self._is_right = False
        coded = self._coded()
        pieces, end = self._framed(coded)
        chance.shuffle(self._headers)
        interim = b""
        if chance.random() < 0.1:
            number = chance.choice((1, 1, 2, 30))
            interim = chance.choice(INTERIM[:2] if chance.random() < 0.9 else INTERIM) * number
            self._is_right &= INTERIM[2] not in interim and number < 30
        head = interim + b"\r\n".join([line, *self._headers, b"", b""])
        if chance.random() < 0.03:
            head = head.replace(b"\r\n", b"\n")
            self._is_right = False
        steps: list[Step] = [head, *pieces]
        if end is not None:
            steps.append(end)
        if chance.random() < 0.2:
            steps = self._cut(steps)
        return Delivery(
            script=self._sliced(steps),
            is_content_intact=self._is_intact,
            is_right=self._is_right and self._is_intact and not self._is_broken,
            is_broken=self._is_broken,
            least=self._least,
        )

    def _change_body(self) -> None:
        """Change the content."""
        self._is_intact = False
        data, chance = self._body, self._chance
        for _ in range(chance.randint(1, 3)):
            at, size = chance.randrange(len(data) + 1), chance.randint(0, 30)
            end = min(len(data), at + size)
            values = (b"", data[at:end] * 2, chance.choice(PIECES), chance.choice(HOSTILE))
            data = data[:at] + chance.choice(values) + data[chance.choice((at, end)) :]
        if chance.random() < 0.1:
            data = chance.choice(
                (b"", b"\n" * 99, b"<html>No</html>", b"a" * 300_000, b"null", b"[]")
            )
        self._body = data

    def _status_line(self) -> bytes:
        kind = self._chance.random()
        if kind < 0.85:
            return b"HTTP/1.1 200 OK"
        self._is_right = False
        if kind < 0.95:
            status = self._chance.choice(STATUSES)
            if status != 200:
                self._is_intact = False
            return b"HTTP/1.1 %d Whatever" % status
        self._is_intact = False
        return self._chance.choice(STATUS_LINES)

    def _type(self) -> None:
        kind = b"text/event-stream" if self._is_stream else b"application/json"
        if self._chance.random() < 0.15:
            kind = self._chance.choice(TYPES)
            self._is_right = False
        self._headers.append(b"Content-Type: " + kind)
        if self._chance.random() < 0.05:
            self._headers.pop()
            self._is_right = False

    def _coded(self) -> bytes:
        """Return the body with its content coding."""
        kind = self._chance.randrange(30)
        if kind == 0:
            self._headers.append(b"content-encoding: gzip")
            return gzip.compress(self._body)
        if kind == 1:
            self._headers.append(b"Content-Encoding: deflate")
            return zlib.compress(self._body)
        if kind == 2:
            self._headers.append(b"Content-Encoding: deflate")
            packer = zlib.compressobj(wbits=-15)
            return packer.compress(self._body) + packer.flush()
        if kind == 3:
            self._headers.append(b"Content-Encoding: x-gzip")
            half = len(self._body) // 2
            return gzip.compress(self._body[:half]) + gzip.compress(self._body[half:])
        if kind == 4:
            return self._wrongly_coded()
        if kind == 5:
            self._headers.append(b"Content-Encoding: identity")
        return self._body

    def _wrongly_coded(self) -> bytes:
        self._is_right = self._is_intact = False
        coding = self._chance.choice(
            (b"gzip, gzip", b"br", b"zstd", b"gzip", b"deflate", b"a" * 999)
        )
        self._headers.append(b"Content-Encoding: " + coding)
        bomb = gzip.compress(bytes(20_000_000))
        packed = gzip.compress(self._body)
        at = self._chance.randrange(len(packed))
        broken = packed[:at] + b"\xff\0" + packed[at + 2 :]
        return self._chance.choice(
            (self._body, bomb, broken, packed + b"garbage", packed[:-5], b"")
        )

    def _framed(self, body: bytes) -> tuple[Sequence[bytes], End | None]:
        """Return the pieces of the body, and the end of the connection."""
        chance = self._chance
        kind = chance.randrange(10)
        if kind < 3:
            length = len(body)
            if chance.random() < 0.1:
                length = max(0, length + chance.choice((-1, 1, 7, -7, 10**6)))
                self._is_right &= length == len(body)
                self._is_intact &= length >= len(body)
                self._is_broken |= length > len(body) and not self._is_stream
            self._headers.append(b"Content-Length: %d" % length)
            return [body], CUT if length > len(body) else None
        if kind < 5:
            if chance.random() < 0.5:
                self._headers.append(b"Connection: close")
            return [body], CUT
        self._headers.append(b"Transfer-Encoding: chunked")
        cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.choice((0, 1, 3, 9))))
        edges = [0, *cuts, len(body)]
        parts = [body[a:b] for a, b in pairwise(edges) if b > a]
        extension = chance.choice((b"", b"", b"", b";a=b", b" ", b';a="b"'))
        size = chance.choice((b"%x", b"%X", b"0%x"))
        chunks = [size % len(part) + extension + b"\r\n" + part + b"\r\n" for part in parts]
        if extension == b" ":
            self._is_right = False
        if chance.random() < 0.05 and chunks:
            self._is_right = self._is_intact = False
            at = chance.randrange(len(chunks))
            chunks[at] = (
                chance.choice((b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"5\r\nab"))
                + chunks[at]
            )
        trailers = chance.choice((b"", b"", b"", b"X-T: a\r\n", b"Content-Length: 5\r\n", b"x\r\n"))
        if trailers in {b"Content-Length: 5\r\n", b"x\r\n"}:
            self._is_right = False
        return [*chunks, b"0\r\n" + trailers + b"\r\n"], None

    def _cut(self, steps: list[Step]) -> list[Step]:
        """Break off somewhere."""
        data = b"".join(each for each in steps if isinstance(each, bytes))
        at = self._chance.randrange(len(data))
        self._is_right = False
        end = self._chance.choice((CUT, CUT, RESET, HALF_CLOSE, STALL))
        self._least = b"" if end is RESET else data[:at]
        return [data[:at], end]

    def _sliced(self, steps: list[Step]) -> Script:
        """Send the bytes in other pieces."""
        if self._chance.random() < 0.5:
            return steps
        data = b"".join(each for each in steps if isinstance(each, bytes))
        ends = [each for each in steps if not isinstance(each, bytes)]
        cuts = sorted(
            self._chance.randrange(len(data) + 1) for _ in range(self._chance.randint(1, 8))
        )
        edges = [0, *cuts, len(data)]
        return [*(data[a:b] for a, b in pairwise(edges)), *ends]
