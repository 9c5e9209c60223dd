"""Hold journal: holds that are not in the SQLite file yet, in two small files beside it.

A request's hold is appended here before the request leaves, in about a microsecond, and follows
into the database a fraction of a second later, together with others. If the process is killed
meanwhile, the next start reads the holds back. As any hold that was not synced to disk, it may be
lost in a power cut, which also ends its call.

    append ──► file in use ──┐ begin_batch: the other file is used from now on
                             └──► all its holds are written to the database ──► end_batch: emptied
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import msgspec

from services.common.json_errors import NOT_JSON
from services.storage.base import StateError
from services.storage.ledger import HoldRow

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode

FILES = ("holds.0.journal", "holds.1.journal")
"""Names in the state directory."""


class HoldJournal:
    """Journal of one process, in a directory that no other process uses."""

    def __init__(self, state: Path) -> None:
        """Open the files, which keep what an earlier process has left. Raises StateError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._files = [os.open(state / name, flags, 0o600) for name in FILES]
        except OSError as error:
            raise StateError(f"{state}: {error.strerror}") from error
        self._in_use = 0
        self._has_batch = False

    def append(self, hold: HoldRow) -> None:
        """Append a hold. It survives if the process is killed. Raises OSError."""
        file = self._files[self._in_use]
        line = _encode(hold) + b"\n"
        written = os.write(file, line)
        if written != len(line):
            # The next line must not continue this one.
            os.ftruncate(file, os.fstat(file).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def begin_batch(self) -> None:
        """Use the other file from now on. Without effect while a batch has not ended."""
        if not self._has_batch:
            self._has_batch = True
            self._in_use ^= 1

    def end_batch(self, *, all_written: bool) -> None:
        """Empty the file before: all its holds are in the database.

        With `all_written` those of the file in use are in the database, too: it is emptied as well.
        """
        try:
            if self._has_batch:
                self._has_batch = False
                os.ftruncate(self._files[self._in_use ^ 1], 0)
            if all_written:
                os.ftruncate(self._files[self._in_use], 0)
        except OSError as error:
            # Harmless: a hold that is in the database is not written again.
            log.warning("journal.not_emptied", extra={"reason": error.strerror})

    def read(self) -> list[HoldRow]:
        """Return the holds of an earlier process. A last line that was cut is no hold."""
        holds = []
        for file in self._files:
            data = os.pread(file, os.fstat(file).st_size, 0)
            for line in data.splitlines(keepends=True):
                if line.endswith(b"\n"):
                    try:
                        holds.append(msgspec.json.decode(line, type=HoldRow))
                    except NOT_JSON:
                        continue  # Zeros or a torn line, after a power cut.
        return holds

    def clear(self) -> None:
        """Empty both files."""
        for file in self._files:
            os.ftruncate(file, 0)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)
