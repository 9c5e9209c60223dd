"""Log handler that never blocks the event loop: lines wait in a bounded buffer.

The reader of standard error may be slow, or have stopped. Then the pipe is full, and a write to it
would stop the whole process. Lines wait in memory instead. Lines beyond the bound are lost and
counted: `log.lost` with their number is the next line that is written.

The standard library's way is a thread (`QueueHandler` and `QueueListener`). A request at the edge
takes 80 to 87 µs of CPU with it, 61 to 66 with this handler, and 54 to 55 without a log; and its
queue needs a bound of its own. `python -m tests.bench.edge` shows it, with `--log queue` and
`--log none`, in the row "whole, 1 KB".
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
from asyncio import get_running_loop
from threading import RLock

from services.common.json_logs import LineHandler

STANDARD_ERROR = 2

WRITE_BYTES_MAX = select.PIPE_BUF
"""Bytes that a pipe takes without blocking if poll(2) calls it writable: pipe(7)."""

BUFFER_BYTES_MAX = 4 * 2**20
"""Bytes of lines that wait for the reader: those of some five thousand calls."""

RETRY_S = 0.01
"""The interval of attempts to write to a full pipe."""

CLOSE_TIMEOUT_MS = 500
"""How long the end of the process waits for the reader."""


class NonBlockingHandler(LineHandler):
    """Writes the lines of one turn of the event loop together, at its end.

    A warning or worse is written at once, after all lines before it, and so is every line that is
    logged where no loop runs. A process that is killed loses the lines of one turn.
    """

    def __init__(self, fd: int = STANDARD_ERROR) -> None:
        super().__init__()
        self.lock = self._lock = RLock()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._buffer = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop that will flush the buffer. None: no flush is scheduled."""
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record's line."""
        try:
            self._add(self.format(record).encode(errors="backslashreplace"))
            if record.levelno > logging.INFO:
                self.flush()
            if self._buffer and not self._schedule_flush():
                self.flush()
        except Exception:  # noqa: BLE001 - the library's own way with a record that fails
            self.handleError(record)

    def write_line(self, line: bytes) -> None:
        """Add a line, as `emit` does a record's."""
        with self._lock:
            self._add(line)
        if not self._schedule_flush():
            self.flush()

    def flush(self) -> None:
        """Write as much as the reader takes without blocking."""
        self.acquire()
        try:
            self._write(wait_ms=0)
        finally:
            self.release()

    def close(self) -> None:
        """Write the rest, for at most `CLOSE_TIMEOUT_MS`."""
        self.acquire()
        try:
            self._write(wait_ms=CLOSE_TIMEOUT_MS)
            self._buffer.clear()
        finally:
            self.release()
        super().close()

    def _add(self, line: bytes) -> None:
        if len(self._buffer) > BUFFER_BYTES_MAX:
            self._lost += 1
            return
        if self._lost:
            line = b"%b\n%b" % (self.format(_lost_record(self._lost)).encode(), line)
            self._lost = 0
        self._buffer += line + b"\n"

    def _write(self, wait_ms: int) -> None:
        buffer = self._buffer
        try:
            while buffer and self._poll.poll(wait_ms):
                # Whole lines: if the process is killed before the rest, no half line was read.
                end = buffer.rfind(b"\n", 0, WRITE_BYTES_MAX) + 1 or WRITE_BYTES_MAX
                del buffer[: os.write(self._fd, buffer[:end])]
        except OSError:  # The reader has closed the pipe.
            buffer.clear()

    def _schedule_flush(self) -> bool:
        """Have the event loop flush the buffer. Return whether one runs here."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            return False
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self._flush_from_loop, loop)
        return True

    def _flush_from_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = None
        self.flush()
        if self._buffer:
            self._loop = loop
            loop.call_later(RETRY_S, self._flush_from_loop, loop)


def _lost_record(lines: int) -> logging.LogRecord:
    record = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
    return logging.makeLogRecord({**record, "msg": "log.lost", "lines": lines})
