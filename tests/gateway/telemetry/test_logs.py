from __future__ import annotations

import json
import logging
import sys

from gateway.telemetry import logs as edge
from services.common import json_logs as service

SECRET = "what the client sent"


def record(**extra: object) -> logging.LogRecord:
    """A record of a failure that quotes a client."""
    logger = logging.getLogger("test")
    try:
        raise ValueError(SECRET)
    except ValueError:
        failure = sys.exc_info()
    return logger.makeRecord("test", logging.ERROR, "", 0, "it.failed", (), failure, extra=extra)


def test_both_halves_log_in_the_same_way() -> None:
    """A line tells the same with the same keys, whichever process wrote it."""
    failed = record(request_id="req-1")
    line = json.loads(edge.JsonLines().format(failed))
    assert line == json.loads(service.JsonFormatter().format(failed))
    assert line["request_id"] == "req-1"
    assert line["error"]["type"] == "ValueError"


def test_an_exceptions_text_is_left_out() -> None:
    """Only what kind it is, and where it happened."""
    assert SECRET not in edge.JsonLines().format(record())
