"""Bodies that the server has compressed, although it was asked not to."""

from __future__ import annotations

import zlib

from services.providers.http.errors import HttpError, HttpErrorKind

READ_MAX = 256 * 1024
"""The most that one read gives: a small input cannot fill the memory."""
FREE = 1024 * 1024
"""Bytes of output that nobody asks about."""
RATIO_MAX = 100
"""Bytes of output for each one of input, beyond that. Event streams reach about 20."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


class Inflater:
    """Decompresses a body as it arrives, within bounds. Raises HttpError (BAD_RESPONSE)."""

    @classmethod
    def of(cls, coding: bytes) -> Inflater | None:
        """What undoes the content coding `coding`. None where there is nothing to undo."""
        name = coding.strip().lower()
        if name in {b"", b"identity"}:
            return None
        if name not in {b"gzip", b"x-gzip", b"deflate"}:
            raise HttpError(HttpErrorKind.BAD_RESPONSE, "an unknown content coding")
        return cls(gzip=name != b"deflate")

    def __init__(self, *, gzip: bool) -> None:
        self._window = _GZIP if gzip else 0
        self._stream: zlib._Decompress | None = None
        self._input = b""
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes) -> None:
        """More input."""
        self._input += data
        self._taken += len(data)

    def take(self) -> bytes:
        """The next output, at most `READ_MAX`; empty when more input is needed."""
        try:
            data = self._inflate()
        except zlib.error:
            raise HttpError(HttpErrorKind.BAD_RESPONSE, "a broken compression") from None
        self._given += len(data)
        if self._given > FREE + RATIO_MAX * self._taken:
            raise HttpError(HttpErrorKind.BAD_RESPONSE, "a body that expands without measure")
        return data

    def close(self) -> None:
        """The input is over. Raises where the compressed stream is not."""
        if self._taken and not (self._stream and self._stream.eof):
            raise HttpError(HttpErrorKind.BAD_RESPONSE, "a compression without end")

    def _inflate(self) -> bytes:
        data = b""
        while not data:
            if self._stream is None or self._stream.eof:  # gzip allows several in a row.
                if not self._input:
                    break
                self._stream = zlib.decompressobj(self._window or _deflate_window(self._input))
            data = self._stream.decompress(self._input, READ_MAX)
            self._input = self._stream.unused_data or self._stream.unconsumed_tail
            if not self._stream.eof:
                break
        return data


def _deflate_window(start: bytes) -> int:
    """`deflate` means the zlib format, but some send it raw (RFC 9110, 8.4.1.2)."""
    return _ZLIB if start[0] & 0x0F == zlib.DEFLATED else _RAW
