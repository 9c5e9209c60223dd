from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from services.common.json_logs import JsonFormatter, LineHandler, configure, emit

SECRET = "what the client sent"


def record(**extra: object) -> logging.LogRecord:
    """A record of a failure whose text quotes a caller."""
    logger = logging.getLogger("test")
    try:
        raise ValueError(SECRET)
    except ValueError:
        failure = sys.exc_info()
    return logger.makeRecord("test", logging.ERROR, "", 0, "it.failed", (), failure, extra=extra)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """All that is logged, while the root logger is ours."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    switches = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    lines = io.StringIO()
    yield lines
    root.handlers[:] = before
    root.setLevel(level)
    logging.logThreads, logging.logProcesses, logging.logMultiprocessing = switches


def test_a_line_has_the_event_and_its_fields() -> None:
    """Time in UTC with milliseconds, level, logger, event, then what `extra` holds."""
    failed = record(request_id="req-1")
    failed.created = 1_700_000_000.9996
    line = json.loads(JsonFormatter().format(failed))

    assert list(line) == ["ts", "level", "logger", "event", "request_id", "error"]
    assert line["ts"] == "2023-11-14T22:13:20.999+00:00"
    assert (line["level"], line["logger"], line["event"]) == ("error", "test", "it.failed")
    assert line["request_id"] == "req-1"


def test_an_exceptions_text_is_left_out() -> None:
    """The line has its type, and where it happened."""
    text = JsonFormatter().format(record())

    assert SECRET not in text
    assert json.loads(text)["error"]["type"] == "ValueError"
    assert json.loads(text)["error"]["at"][-1].endswith(" record")


def test_an_event_of_emit_looks_like_any_other(written: io.StringIO) -> None:
    """But for the time, the line is the one that `info` writes."""
    configure(logging.StreamHandler(written))
    logger = logging.getLogger("services.some")
    fields = {"model": "a/b", "status": 200, "path": "/\udcff".encode("ascii", "replace").decode()}

    logger.info("call.ended", extra=fields)
    emit(logger, "call.ended", fields)

    slow, fast = (json.loads(line) for line in written.getvalue().splitlines())
    assert slow.pop("ts") <= fast.pop("ts")
    assert list(slow.items()) == list(fast.items())


class Lines(LineHandler):
    """Keeps both kinds of lines."""

    def __init__(self) -> None:
        super().__init__()
        self.direct: list[bytes] = []
        self.of_records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line of a record."""
        self.of_records.append(self.format(record))

    def write_line(self, line: bytes) -> None:
        """Keep a line that has no record."""
        self.direct.append(line)


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("fields", [{}, {"model": "a/é", "status": 200, "cost": 1.5, "none": None}])
def test_a_line_without_a_record_is_the_records_line(fields: dict[str, object]) -> None:
    """A handler of lines gets the same members in the same order, whatever the fields."""
    lines = Lines()
    configure(lines)
    logger = logging.getLogger("services.some")

    emit(logger, "call.ended", fields)
    logger.info("call.ended", extra=fields)

    (direct,), (of_record,) = lines.direct, lines.of_records
    fast, slow = json.loads(direct), json.loads(of_record)
    assert fast.pop("ts") <= slow.pop("ts")
    assert list(fast.items()) == list(slow.items())


@pytest.mark.usefixtures("written")
def test_a_second_handler_gets_a_record() -> None:
    """A handler of the standard library gets every record."""
    lines, text = Lines(), io.StringIO()
    configure(lines)
    logging.getLogger().addHandler(logging.StreamHandler(text))

    emit(logging.getLogger("services.some"), "call.ended", {"a": 1})

    assert not lines.direct
    assert len(lines.of_records) == 1
    assert text.getvalue() == "call.ended\n"


def test_events_below_the_level_are_not_written(written: io.StringIO) -> None:
    """All handlers of before are replaced."""
    configure(logging.StreamHandler(written), "warning")

    logging.getLogger("a").info("it.happened")
    logging.getLogger("a").warning("it.failed")

    (line,) = written.getvalue().splitlines()
    assert json.loads(line)["event"] == "it.failed"
