"""JSON logs: one line for each event.

    log.info("call.ended", extra={"request_id": "req-1", "model": "m"})

gives `{"ts":…,"level":"info","logger":…,"event":"call.ended","request_id":"req-1","model":"m"}`.
The message is the event's name, a constant; the facts are fields in `extra`. Never log a prompt,
an answer or a key. Of an exception the line has the type and the place, but not the text, which
may quote what a caller sent.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FIELDS = "fields"
"""The attribute that holds the fields of a record that `emit` made."""

_RECORD = vars(logging.LogRecord("", logging.INFO, "", 0, "", None, None))
"""Attributes that all records of `emit` have in common."""


@lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """Formatter of a record as one line of JSON, without the line end."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        second, micros = divmod(round(record.created * 1_000_000), 1_000_000)
        line: dict[str, object] = {
            "ts": f"{_second(second)}.{micros // 1000:03}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        extra = vars(record).get(_FIELDS) or _extra(record)
        line.update(extra)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _described(record.exc_info[1])
        return msgspec.json.encode(line, enc_hook=str).decode()


def emit(logger: logging.Logger, event: str, fields: Mapping[str, object]) -> None:
    """Log an event of level info. The caller has checked that the level is enabled.

    The line is that of `logger.info(event, extra=fields)`, at a third of the cost: the place in
    the code is not looked up, the record is copied from a ready one, the fields need not be told
    from the attributes of every record, and filters of the logger, of which there are none, are
    not asked.
    """
    record = logging.LogRecord.__new__(logging.LogRecord)
    now = time.time()
    vars(record).update(
        _RECORD, name=logger.name, msg=event, created=now, msecs=now % 1 * 1000, fields=fields
    )
    logger.callHandlers(record)


def configure(handler: logging.Handler, level: str = "info") -> None:
    """Send all logs from `level` on to `handler`."""
    # The lines do not name thread and process: do not look them up (the library's own switches).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _extra(record: logging.LogRecord) -> Mapping[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _described(error: BaseException) -> dict[str, object]:
    """The exception's type and place, innermost frame last. Its text may quote a caller."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "type": type(error).__qualname__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
