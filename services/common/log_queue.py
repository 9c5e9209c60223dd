"""Where lines of the log go: to standard error, and never at the price of waiting.

Who reads them may be slow, or have stopped: then a pipe is full, and a write to it would stop the
whole process. Lines wait in memory instead; when there are too many, new ones are lost and counted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select

STANDARD_ERROR = 2

PIECE_BYTES = select.PIPE_BUF
"""What a pipe takes without waiting if poll(2) calls it writable: pipe(7)."""

WAITING_BYTES_MAX = 4 * 2**20
"""Of lines that nobody reads: some five thousand calls."""

AGAIN_S = 0.01
"""When to look again whether somebody reads."""

LAST_WORDS_MS = 500
"""How long the end of the process waits for a reader."""


class LinesHandler(logging.Handler):
    """Writes the lines of one turn of the event loop at its end, together.

    What is a warning or worse is written at once, after all that was before it, and so is
    whatever is logged where no loop runs. A process that is killed loses the lines of a turn.
    """

    def __init__(self, fd: int = STANDARD_ERROR) -> None:
        super().__init__()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._waiting = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        """Which will write what waits."""
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a record's line."""
        try:
            self._add(self.format(record))
            if record.levelno > logging.INFO:
                self.flush()
            if self._waiting and not self._comes_back():
                self.flush()
        except Exception:  # noqa: BLE001 - the library's own way with what cannot be logged
            self.handleError(record)

    def flush(self) -> None:
        """Writes what the reader takes."""
        self.acquire()
        try:
            self._write(wait_ms=0)
        finally:
            self.release()

    def close(self) -> None:
        """Gives a slow reader a last chance."""
        self.acquire()
        try:
            self._write(wait_ms=LAST_WORDS_MS)
            self._waiting.clear()
        finally:
            self.release()
        super().close()

    def _add(self, line: str) -> None:
        if len(self._waiting) > WAITING_BYTES_MAX:
            self._lost += 1
            return
        if self._lost:
            line = f"{self.format(_loss(self._lost))}\n{line}"
            self._lost = 0
        self._waiting += line.encode(errors="backslashreplace")
        self._waiting += b"\n"

    def _write(self, wait_ms: int) -> None:
        waiting = self._waiting
        try:
            while waiting and self._poll.poll(wait_ms):
                # Whole lines: nobody reads half of one if the process is killed before the rest.
                end = waiting.rfind(b"\n", 0, PIECE_BYTES) + 1 or PIECE_BYTES
                del waiting[: os.write(self._fd, waiting[:end])]
        except OSError:  # The reader is gone for good.
            waiting.clear()

    def _comes_back(self) -> bool:
        """Whether the event loop will write what there is."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self._come_back, loop)
        return True

    def _come_back(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = None
        self.flush()
        if self._waiting:
            self._loop = loop
            loop.call_later(AGAIN_S, self._come_back, loop)


def _loss(lines: int) -> logging.LogRecord:
    record = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
    return logging.makeLogRecord({**record, "msg": "log.lost", "lines": lines})
