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
_ROOT = logging.getLogger()
_encode = msgspec.json.Encoder(enc_hook=str).encode


@lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _timestamp(seconds: float) -> str:
    millis = round(seconds * 1_000_000) // 1000
    return f"{_second(millis // 1000)}.{millis % 1000:03}+00:00"


@lru_cache(maxsize=64)
def _constants(logger: str, event: str) -> str:
    """Return the members that all lines of an event have in common."""
    members = {"level": "info", "logger": logger, "event": event}
    return msgspec.json.encode(members)[1:-1].decode()


class LineHandler(logging.Handler):
    """Handler that takes a line as it is, beside the records of the standard library."""

    # Not an ABC, of which `isinstance` takes longer than the rest of `emit`.
    def write_line(self, line: bytes) -> None:
        """Write a line of level info, without its line end."""
        raise NotImplementedError


class JsonFormatter(logging.Formatter):
    """Formatter of a record as one line of JSON, without the line end."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "ts": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(_extra(record))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _described(record.exc_info[1])
        return _encode(line).decode()


def emit(logger: logging.Logger, event: str, fields: Mapping[str, object]) -> None:
    """Log an event of level info. The caller has checked that the level is enabled.

    The line is that of `logger.info(event, extra=fields)`. No record is made where a `LineHandler`
    is the only handler, so that filters do not apply.
    """
    handlers = _ROOT.handlers
    if len(handlers) == 1 and isinstance(handlers[0], LineHandler) and not logger.handlers:
        start = f'{{"ts":"{_timestamp(time.time())}",{_constants(logger.name, event)}'.encode()
        members = _encode(fields)[1:]
        handlers[0].write_line(b"%b,%b" % (start, members) if fields else start + members)
    else:
        logger.info(event, extra=fields)


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
