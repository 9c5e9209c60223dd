"""Decompression, for servers that compress although the request asks them not to."""

from __future__ import annotations

import zlib

from services.providers.http.errors import HttpError, HttpErrorKind

READ_MAX = 256 * 1024
"""Bytes returned at most by one read, so that a small input cannot fill the memory."""
UNCHECKED_BYTES = 1024 * 1024
"""Bytes of output up to which the ratio is not checked."""
RATIO_MAX = 100
"""Bytes of output per byte of input beyond that. Event streams reach about 20."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


class Decompressor:
    """Streaming decompressor with bounds. Raises HttpError (BAD_RESPONSE)."""

    @classmethod
    def of(cls, coding: bytes) -> Decompressor | None:
        """Decompressor of the content coding `coding`. None for `identity`."""
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
        """Add input."""
        self._input += data
        self._taken += len(data)

    def take(self) -> bytes:
        """Take the next output, at most `READ_MAX` bytes. Empty if more input is needed."""
        try:
            data = self._inflate()
        except zlib.error:
            raise HttpError(HttpErrorKind.BAD_RESPONSE, "a broken compression") from None
        self._given += len(data)
        if self._given > UNCHECKED_BYTES + RATIO_MAX * self._taken:
            raise HttpError(HttpErrorKind.BAD_RESPONSE, "a body that expands without measure")
        return data

    def close(self) -> None:
        """End the input. Raises if the compressed stream is incomplete."""
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
    """Window size for `deflate`: the zlib format, which some send raw (RFC 9110, 8.4.1.2)."""
    return _ZLIB if start[0] & 0x0F == zlib.DEFLATED else _RAW
